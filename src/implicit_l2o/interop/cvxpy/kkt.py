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
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o.interop.cvxpy.program import ConePrograms

_SHIFT = 1e-9  # regularisation relative to the largest entries; refinement takes it out again
_REFINEMENTS = 6
_ENOUGH = 1e-9  # residual relative to the right-hand side: solved
_SMALL = 60  # rows and columns up to which all samples are factored at once


@dataclass(frozen=True, eq=False)
class KKT:
    """The factored equations of every sample.

    Attributes:
        samples: one for each sample, or None where all are dense and together in `batch`.
        batch: matrices and their factors.
    """

    samples: list["_Sample"] | None
    batch: "_Batch | None"

    @classmethod
    def at(cls, programs: ConePrograms, w: Float[np.ndarray, "B m"]) -> "KKT":
        """Factor the equations at `w`."""
        n, m = programs.canonical.n, programs.canonical.m
        point = torch.as_tensor(w)
        if n + m <= _SMALL:
            return cls(None, _Batch.at(programs, *programs.cones.derivative(point)))
        return cls([_Sample.at(programs, i, *programs.cones.derivative(point[i : i + 1])) for i in range(len(w))], None)

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
class _Sample:
    """The equations of one sample without the rows of inequalities that are not active, whose `w` follows from `x`."""

    matrix: Any  # of the kept unknowns, regularised by nothing
    factor: Any
    kept: np.ndarray  # rows of the constraints
    idle: np.ndarray
    A_idle: Any
    n: int

    @classmethod
    def at(cls, programs: ConePrograms, sample: int, diagonal: Tensor, blocks: list[Any]) -> "_Sample":
        n, m = programs.canonical.n, programs.canonical.m
        idle = np.zeros(m, bool)
        idle[: diagonal.shape[1]] = diagonal[0].numpy() == 1
        kept = np.flatnonzero(~idle)
        # The rows that are left: D is zero for active inequalities and equations, and a block for the other cones.
        place = np.full(m, -1)
        place[kept] = np.arange(len(kept))
        rows, columns, values = [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]
        for places, matrices in blocks:
            at = place[places.numpy()]
            rows.append(np.broadcast_to(at[:, :, None], matrices.shape[1:]).reshape(-1))
            columns.append(np.broadcast_to(at[:, None, :], matrices.shape[1:]).reshape(-1))
            values.append(matrices[0].numpy().reshape(-1))
        entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        D = sp.csc_array(entries, shape=(len(kept), len(kept)))
        if programs.sparse:
            A, P = programs.A(sample).tocsr(), programs.quadratic(sample)
            A_kept = A[kept]
            top = sp.hstack([P, (A_kept.T @ D - A_kept.T)], format="csc")
            matrix: Any = sp.vstack([top, sp.hstack([A_kept, D], format="csc")], format="csc")
            A_idle: Any = A[np.flatnonzero(idle)]
            shift = _SHIFT * max(1.0, abs(matrix).max())
            corner = shift * (sp.eye_array(len(kept)) - D)
            shifted = (matrix + sp.block_diag([shift * sp.eye_array(n), corner])).tocsc()
            return cls(matrix, sparse_factor(shifted), kept, np.flatnonzero(idle), A_idle, n)
        P, A = (part[0 if programs.shared else sample].numpy() for part in programs.dense)
        A_kept, full = A[kept], D.toarray()
        corner = full if blocks else np.zeros((len(kept), len(kept)))
        side = A_kept.T @ full - A_kept.T if blocks else -A_kept.T
        matrix = np.block([[P, side], [A_kept, corner]])
        shift = _SHIFT * max(1.0, float(np.abs(matrix).max(initial=0.0)))
        shifted = matrix.copy()
        shifted[:n, :n] += shift * np.eye(n)
        shifted[n:, n:] += shift * (np.eye(len(kept)) - corner)
        factor = scipy.linalg.lu_factor(shifted, check_finite=False)
        return cls(matrix, factor, kept, np.flatnonzero(idle), A[np.flatnonzero(idle)], n)

    def solve(self, right: np.ndarray, transposed: bool) -> tuple[np.ndarray, float]:
        """`A x + w = h` in an idle row; transposed, its unknown multiplies no cone and is given by the right-hand side."""
        n, top, bottom = self.n, right[: self.n], right[self.n :]
        if transposed:
            known = bottom[self.idle]
            top = top - self.A_idle.T @ known
        b = np.concatenate([top, bottom[self.kept]])
        solution, residual = self._refined(b, transposed)
        x = solution[:n]
        w = np.empty(len(bottom))
        w[self.kept] = solution[n:]
        w[self.idle] = known if transposed else bottom[self.idle] - self.A_idle @ x
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
        return scipy.linalg.lstsq(matrix, b, cond=1e-10, check_finite=False)[0]


def sparse_factor(matrix: Any) -> Any:
    """A sparse LU of a quasi-definite matrix, which needs little pivoting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
        return spla.splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options={"SymmetricMode": True})


def polish(
    programs: ConePrograms, x: np.ndarray, w: np.ndarray, *, steps: int, goal: float
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " B"], KKT | None]:
    """Newton steps on `F`, each kept where it lessens `|F|`.

    Returns:
        The points, `|F|`, and the factored equations where they are those of the points that are returned.
    """
    s = project(programs, w)
    first = residual = _norms(*programs.residuals(x, w, s))
    kkt, current = None, False
    for _ in range(steps):
        if bool((residual <= goal).all()):
            break
        kkt = KKT.at(programs, w)
        dx, dw, _ = kkt.solve(*(-part for part in programs.residuals(x, w, s)), transposed=False)
        x_new, w_new = x + dx, w + dw
        s_new = project(programs, w_new)
        new = _norms(*programs.residuals(x_new, w_new, s_new))
        better: Bool[np.ndarray, " B"] = new < residual
        linear = not (programs.cones.second_order or programs.cones.semidefinite or programs.cones.exponential)
        # On polyhedra the equations change with the signs of w alone.
        current = linear and not programs.cones.power and bool(((w_new > 0) == (w > 0))[better].all())
        x, w = np.where(better[:, None], x_new, x), np.where(better[:, None], w_new, w)
        s, residual = np.where(better[:, None], s_new, s), np.where(better, new, residual)
        if not bool(better.any()) or bool((residual <= 1e-3 * first).all() and current):
            break
    return x, w, residual, kkt if current else None


def project(programs: ConePrograms, w: Float[np.ndarray, "B m"]) -> Float[np.ndarray, "B m"]:
    """The nearest points of the cones."""
    with torch.no_grad():
        return programs.cones.project(torch.as_tensor(w)).numpy()


def _norms(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(top).sum(1) + np.square(bottom).sum(1))
