"""The linear equations of a solution's neighbourhood, which polish it and differentiate it.

In `x` and `w = s - y`, with `D` the derivative of the projection onto the cones at `w`, a solution is a zero of
`F(x, w) = (P x + q + A^T (Pi(w) - w), A x + Pi(w) - b)`, whose derivative is `[[P, A^T (D - I)], [A, D]]`.
Source: E. Busseti, W. M. Moursi and S. Boyd, Solution refinement at regular points of conic problems (2019).
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.program import ConePrograms

_SHIFT = 1e-9  # regularisation relative to the largest entries; refinement takes it out again
_REFINEMENTS = 6
_ENOUGH = 1e-9  # residual relative to the right-hand side: solved
_AT_ONCE = 4_000_000  # entries of derivatives that are made at once
_SLIM = 8  # entries of a second-order cone up to which its derivative is a dense block
_SMALL = 120  # rows and columns up to which all samples are factored at once


@dataclass(frozen=True, eq=False)
class KKT:
    """The factored equations of every sample.

    Attributes:
        samples: one for each sample, or None where all are dense and together in `batch`.
        batch: matrices and their factors.
        signs: `(B, m)` which entries of `w` are positive: all that the equations know of it where the cones are polyhedral.
    """

    samples: "list[Sample] | None"
    batch: "_Batch | None"
    signs: Bool[np.ndarray, "B m"]

    @classmethod
    def at(cls, programs: ConePrograms, w: Float[np.ndarray, "B m"], known: "KKT | None" = None) -> "KKT":
        """Factor the equations at `w`; those that `known` has are not factored again."""
        n, m = programs.canonical.n, programs.canonical.m
        point, signs = torch.as_tensor(w), w > 0
        signs[:, : programs.cones.zero] = False  # whose multipliers may have either
        same = np.zeros(len(w), bool)
        if known is not None and is_polyhedral(programs.cones):
            same = (known.signs == signs).all(1)
        if known is not None and bool(same.all()):
            return known
        if n + m <= _SMALL:
            return cls(None, _Batch.at(programs, *programs.cones.derivative(point)), signs)
        samples = [known.samples[i] if kept and known and known.samples else None for i, kept in enumerate(same)]
        new = np.flatnonzero([sample is None for sample in samples])
        # The derivatives of small cones cost calls and not arithmetic: many samples at once.
        chunk = max(1, min(len(w), _AT_ONCE // max(_block_entries(programs.cones), 1)))
        for first in range(0, len(new), chunk):
            some = new[first : first + chunk]
            diagonal, blocks = programs.cones.derivative(point[some])
            for k, i in enumerate(some.tolist()):
                own = [(places, matrices[k : k + 1]) for places, matrices in blocks]
                samples[i] = Sample.at(programs, i, diagonal[k : k + 1], own)
        return cls([sample for sample in samples if sample is not None], None, signs)

    def take(self, index: Int[np.ndarray, " k"]) -> "KKT | None":
        """Some of the samples; None where all are factored together."""
        return None if self.samples is None else KKT([self.samples[i] for i in index], None, self.signs[index])

    def solve(
        self, top: Float[np.ndarray, "B n"], bottom: Float[np.ndarray, "B m"], *, transposed: bool
    ) -> tuple[Float[np.ndarray, "B n"], Float[np.ndarray, "B m"], Float[np.ndarray, " B"]]:
        """The solutions and their residuals relative to the right-hand sides.

        Where the equations have no solution (a degenerate vertex), the least-squares solution of least norm.
        """
        right = np.concatenate([top, bottom], 1)
        if self.batch is not None:
            solution, residual = self.batch.solve(right, transposed)
        else:
            assert self.samples is not None
            pairs = [sample.solve(row, transposed) for sample, row in zip(self.samples, right, strict=True)]
            solution = np.stack([pair[0] for pair in pairs]) if pairs else right
            residual = np.array([pair[1] for pair in pairs])
        return solution[:, : top.shape[1]], solution[:, top.shape[1] :], residual


@dataclass(frozen=True, eq=False)
class _Batch:
    """Small equations of all samples, dense."""

    matrix: Tensor
    lu: Tensor
    pivots: Tensor

    @classmethod
    def at(cls, programs: ConePrograms, diagonal: Tensor, blocks: list[Any]) -> "_Batch":
        P, A = (part.expand(len(programs), -1, -1) for part in programs.dense)
        n, m = programs.canonical.n, programs.canonical.m
        D = diagonal.new_zeros(len(programs), m, m)
        D.diagonal(dim1=1, dim2=2)[:, : diagonal.shape[1]] = diagonal
        for places, matrices in blocks:
            D[:, places[:, :, None], places[:, None, :]] = matrices
        eye = torch.eye(m, dtype=D.dtype)
        matrix = torch.cat([torch.cat([P, A.mT @ (D - eye)], 2), torch.cat([A, D], 2)], 1)
        shift = _SHIFT * matrix.abs().amax((1, 2)).clamp_min(1.0)[:, None, None]
        shifted = matrix.clone()
        shifted[:, :n, :n] += shift * torch.eye(n, dtype=D.dtype)
        shifted[:, n:, n:] += shift * (eye - D)
        return cls(matrix, *torch.linalg.lu_factor(shifted))

    def solve(self, right: np.ndarray, transposed: bool) -> tuple[np.ndarray, np.ndarray]:
        matrix = self.matrix.mT if transposed else self.matrix
        b = torch.as_tensor(right)[:, :, None]
        size = b.norm(dim=1).clamp_min(torch.finfo(b.dtype).tiny)
        x = torch.zeros_like(b)
        best, least = x, torch.full_like(size, torch.inf)
        for _ in range(_REFINEMENTS):
            x = x + torch.linalg.lu_solve(self.lu, self.pivots, b - matrix @ x, adjoint=transposed)
            residual = (b - matrix @ x).norm(dim=1) / size
            better = residual < least
            best, least = torch.where(better[:, None], x, best), torch.where(better, residual, least)
            if bool((least <= 1e-12).all()):
                break
        for i in (~(least <= _ENOUGH)).flatten().nonzero().flatten().tolist():
            if bool(torch.isfinite(matrix[i]).all()):
                best[i] = torch.linalg.lstsq(matrix[i], b[i], rcond=1e-10, driver="gelsd").solution
                least[i] = (b[i] - matrix[i] @ best[i]).norm() / size[i]
        return best[:, :, 0].numpy(), least[:, 0].numpy()


@dataclass(frozen=True, eq=False)
class Sample:
    """The equations of one sample without the rows of inequalities that are not active, whose `w` follows from `x`."""

    matrix: Any  # of the kept unknowns, regularised by nothing
    factor: Any
    kept: np.ndarray  # rows of the constraints
    idle: np.ndarray
    A_idle: Any
    n: int

    @classmethod
    def at(cls, programs: ConePrograms, sample: int, diagonal: Tensor, blocks: list[Any]) -> "Sample":
        """Factor those of one sample, given the derivative of the projection at its `w`."""
        n, m = programs.canonical.n, programs.canonical.m
        idle = np.zeros(m, bool)
        idle[: diagonal.shape[1]] = diagonal[0].numpy() == 1
        kept = np.flatnonzero(~idle)
        # Of the rows that are left D is zero for active inequalities and equations, and a block for the other cones.
        place = np.full(m, -1)
        place[kept] = np.arange(len(kept))
        at = [(place[places.numpy()], matrices[0].numpy()) for places, matrices in blocks]
        if programs.sparse:
            return cls._sparse(programs, sample, kept, np.flatnonzero(idle), at)
        P, A = (part[0 if programs.shared else sample].numpy() for part in programs.dense)
        A_kept, corner = A[kept], np.zeros((len(kept), len(kept)))
        for where, matrices in at:
            corner[where[:, :, None], where[:, None, :]] = matrices
        matrix = np.empty((n + len(kept), n + len(kept)))
        matrix[:n, :n], matrix[n:, :n], matrix[n:, n:] = P, A_kept, corner
        matrix[:n, n:] = A_kept.T @ corner - A_kept.T if at else -A_kept.T
        shift = _SHIFT * max(1.0, float(np.abs(matrix).max(initial=0.0)))
        shifted = matrix.copy()
        shifted[:n, :n] += shift * np.eye(n)
        shifted[n:, n:] += shift * (np.eye(len(kept)) - corner)
        factor = scipy.linalg.lu_factor(shifted, check_finite=False)
        return cls(matrix, factor, kept, np.flatnonzero(idle), A[np.flatnonzero(idle)], n)

    @classmethod
    def _sparse(
        cls,
        programs: ConePrograms,
        sample: int,
        kept: np.ndarray,
        idle: np.ndarray,
        at: list[tuple[np.ndarray, np.ndarray]],
    ) -> "Sample":
        n, A, P = programs.canonical.n, programs.A(sample).tocsr(), programs.quadratic(sample)
        A_kept, size = A[kept], len(kept)
        round_ = len(programs.cones.groups("second_order"))
        large = [(w[k], d[k]) for w, d in at[:round_] if w.shape[1] > _SLIM for k in range(len(w))]
        at = [pair for place, pair in enumerate(at) if place >= round_ or pair[0].shape[1] <= _SLIM]
        parts = [_diagonal_and_rank_two(D) for _, D in large]
        values = [d.reshape(-1) for _, d in at] + [
            np.full(len(w), c) for (w, _), (c, _, _) in zip(large, parts, strict=True)
        ]
        rows = [np.broadcast_to(w[:, :, None], d.shape).reshape(-1) for w, d in at] + [w for w, _ in large]
        columns = [np.broadcast_to(w[:, None, :], d.shape).reshape(-1) for w, d in at] + [w for w, _ in large]
        none = [np.zeros(0, int)]
        places = np.concatenate(rows + none), np.concatenate(columns + none)
        D = sp.csc_array((np.concatenate([*values, np.zeros(0)]), places), shape=(size, size))
        side = A_kept.T @ D - A_kept.T if values else -A_kept.T
        shift = _SHIFT * max(1.0, abs(P).max() if P.nnz else 0.0, abs(A).max() if A.nnz else 0.0)
        corners = [shift * sp.eye_array(n), shift * (sp.eye_array(size) - D)]
        if not large:
            matrix: Any = sp.block_array([[P, side], [A_kept, D]], format="csc")
        else:
            # D = c I + U M U^T: unknowns U^T w of their own keep the matrix sparse.
            U = _columns([(w, part[1]) for (w, _), part in zip(large, parts, strict=True)], size)
            UM = _columns([(w, part[2]) for (w, _), part in zip(large, parts, strict=True)], size)
            below = -sp.eye_array(2 * len(large))
            matrix = sp.block_array([[P, side, A_kept.T @ UM], [A_kept, D, UM], [None, U.T, below]], format="csc")
            corners.append(sp.csc_array(below.shape))
        shifted = (matrix + sp.block_diag(corners)).tocsc()
        factor = spla.splu(shifted) if large else sparse_factor(shifted)
        return cls(matrix, factor, kept, idle, A[idle], n)

    def solve(self, right: np.ndarray, transposed: bool) -> tuple[np.ndarray, float]:
        """`A x + w = h` in an idle row; transposed, its unknown multiplies no cone and is given by the right-hand side."""
        n, top, bottom = self.n, right[: self.n], right[self.n :]
        known = bottom[self.idle]
        if transposed:
            top = top - self.A_idle.T @ known
        more = np.zeros(self.matrix.shape[0] - n - len(self.kept))
        solution, residual = self._refined(np.concatenate([top, bottom[self.kept], more]), transposed)
        x = solution[:n]
        w = np.empty(len(bottom))
        w[self.kept] = solution[n : n + len(self.kept)]
        w[self.idle] = known if transposed else known - self.A_idle @ x
        return np.concatenate([x, w]), residual

    def _refined(self, b: np.ndarray, transposed: bool) -> tuple[np.ndarray, float]:
        matrix = self.matrix.T if transposed else self.matrix
        size = max(float(np.linalg.norm(b)), np.finfo(float).tiny)
        x, best, least = np.zeros_like(b), np.zeros_like(b), np.inf
        rest = b
        for _ in range(_REFINEMENTS):
            x = x + self._apply(rest, transposed)
            rest = b - matrix @ x
            residual = float(np.linalg.norm(rest)) / size
            if residual < least:
                best, least = x, residual
            if not residual > 1e-13:
                break
        if not least <= _ENOUGH:
            least_squares = self._least_squares(matrix, b)
            residual = float(np.linalg.norm(b - matrix @ least_squares)) / size
            if residual <= 2 * least or not np.isfinite(least):
                best, least = least_squares, residual
        return best, least

    def _apply(self, right: np.ndarray, transposed: bool) -> np.ndarray:
        if isinstance(self.factor, tuple):
            return scipy.linalg.lu_solve(self.factor, right, trans=int(transposed), check_finite=False)
        return self.factor.solve(right, trans="T" if transposed else "N")

    def _least_squares(self, matrix: Any, b: np.ndarray) -> np.ndarray:
        if sp.issparse(matrix):
            return spla.lsmr(matrix, b, atol=1e-12, btol=1e-12, maxiter=4 * len(b))[0]
        found: Any = scipy.linalg.lstsq(matrix, b, cond=1e-10, check_finite=False)
        return found[0]


def _diagonal_and_rank_two(
    D: Float[np.ndarray, "d d"],
) -> tuple[float, Float[np.ndarray, "d 2"], Float[np.ndarray, "d 2"]]:
    """`c, U, U M` with `D = c I + U M U^T`, for the derivative of a second-order cone's projection.

    Between the cone and its polar `2 D = I + [[0, e^T], [e, r (I - e e^T)]]`, a multiple of the identity and four entries of
    a matrix over `(1, 0)` and `(0, e)`.
    """
    d = len(D)
    e = 2 * D[0, 1:]
    U = np.zeros((d, 2))
    if not e.any():  # the identity or zero
        return float(D[0, 0]), U, U
    r = (2 * np.trace(D) - d) / (d - 2)
    U[0, 0], U[1:, 1] = 1.0, e
    return (1 + r) / 2, U, U @ np.array([[-r, 1.0], [1.0, -r]]) / 2


def _columns(parts: list[tuple[np.ndarray, np.ndarray]], height: int) -> sp.csc_array:
    """A sparse matrix with two columns for each part, in its rows."""
    rows = np.concatenate([np.repeat(w, 2) for w, _ in parts])
    columns = np.concatenate([np.tile([2 * k, 2 * k + 1], len(w)) for k, (w, _) in enumerate(parts)])
    values = np.concatenate([part.reshape(-1) for _, part in parts])
    return sp.csc_array((values, (rows, columns)), shape=(height, 2 * len(parts)))


def sparse_factor(matrix: Any) -> Any:
    """A sparse LU of a quasi-definite matrix, which needs little pivoting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
        return spla.splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options={"SymmetricMode": True})


def _block_entries(cones: il2o.ConeProduct) -> int:
    """Entries of the derivative's blocks, of one sample."""
    squares = sum(d * d for d in cones.second_order) + sum((n * (n + 1) // 2) ** 2 for n in cones.semidefinite)
    return squares + 9 * (cones.exponential + len(cones.power))


def is_polyhedral(cones: il2o.ConeProduct) -> bool:
    """Whether there are zero and nonnegative cones alone."""
    return cones.size == cones.zero + cones.nonnegative
