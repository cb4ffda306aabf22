"""Sparse factorisation of `A A^T` for the projection onto `{x : A x = b}`; dependent rows are found and left out.

Davis, Direct Methods for Sparse Linear Systems (2006), chapters 4 and 5; SuperLU (SciPy) in symmetric mode does the work.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._conjugate_gradient import conjugate_gradient
from implicit_l2o.operators._factor import AbstractAffineFactor
from implicit_l2o.operators._linear_map import linear_map
from implicit_l2o.operators._sparse import SparseMatrix

# Rows are scaled to norm one, so a pivot of A A^T is the squared sine of the angle of a row to the span of the rows before
# it. Rounding alone makes dependent rows as large as 1e-16 times the squared coefficients that express them (as many as
# there are nodes in a graph); a row that is independent by less than 1e-5 radian cannot be told apart in A A^T.
_DEPENDENT = 1e-10
_NUDGE = 1e-15  # relative to the unit diagonal: keeps SuperLU from meeting an exact zero pivot
_QUIET = np.errstate(invalid="ignore")  # NaN and infinity stay in their sample, as in torch, and are no warning
_SMALL = 400  # rows up to which one dense product with (A A^T)^{-1} beats two triangular solves (measured, CPU)
_ITERATIVE = 16  # relative residual of the conjugate gradients, in units of the dtype's precision
_CHUNK = 256  # dependent rows expressed at a time: bounds the dense work space


class IllConditionedRows(ValueError):
    """The rows cannot be told apart, or not be solved for, through `A A^T`."""


@final
@dataclass(frozen=True, eq=False)
class SparseRows(AbstractAffineFactor):
    """A sparse factor of `A A^T`, without the dependent rows.

    For few rows a projection multiplies by the inverse of `A A^T`, stored. For many, on the CPU its triangular solves run in
    float64 (SciPy's SuperLU); on an accelerator, where they would wait for the host, conjugate gradients solve
    `A A^T y = A x` by products with `A` alone, to the precision of the dtype. `A^+ b` is solved for on the host in any case.
    """

    matrix: Any  # SciPy CSR (m, n), as given
    shape: tuple[int, int]
    rank: int
    sparse: SparseMatrix  # the independent rows, scaled to norm one, in the dtype and on the device of A
    kept: np.ndarray  # their numbers
    scale: np.ndarray  # row norms of A (1 for a zero row)
    rows: Any  # SciPy CSR, float64: the independent rows again
    gram: Any  # SuperLU factor of rows @ rows.T
    inverse: Tensor | None  # of rows @ rows.T, where that is small and well conditioned for its dtype
    iterative: bool  # whether projections solve by conjugate gradients
    relations: Any  # SciPy CSC (m, m - rank): each column is a combination of the scaled rows of A that vanishes
    relations_gram: Any  # SuperLU factor of those relations, in the units of A; None where there are none

    def __deepcopy__(self, memo: dict[int, Any]) -> "SparseRows":
        return self  # immutable, and SuperLU factors cannot be copied

    def __reduce__(self) -> tuple[Any, ...]:
        # Factorised again where it is loaded.
        return partial(sparse_factor, iterative=self.iterative), (self.matrix, self.like.dtype, self.like.device)

    @property
    def like(self) -> Tensor:
        """The values of the sparse matrix."""
        return self.sparse.csr.values()

    def project(self, x: Float[Tensor, "B n"], point: Float[Tensor, "*B n"]) -> Float[Tensor, "B n"]:
        """`N x + point`, `N = I - A^T (A A^T)^{-1} A`; `N` is symmetric, so cotangents are projected onto null(A) too."""
        return linear_map(x, self._null, self._null) + point

    def solve(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B n"]:
        """`A^+ b`, with two steps of iterative refinement; the derivative with respect to `b` is `(A^+)^T`."""
        if b.ndim == 1:
            return self.solve(b[None])[0]
        return linear_map(b, self._pinv, self._pinv_transposed)

    def multipliers(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """The transpose of `solve`."""
        return linear_map(x, self._pinv_transposed, self._pinv)

    @_QUIET
    def gap(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B"]:
        """By the relations between the rows, each of which `b` must satisfy too."""
        if self.relations.shape[1] == 0:
            return b.new_zeros(b.shape[:-1])
        scaled = np.atleast_2d(_host(b)) / self.scale
        broken = (np.abs(scaled @ self.relations) / _row_norms(self.relations.T)).max(-1)
        size = np.linalg.norm(scaled, axis=-1)
        return _device(broken / np.where(size == 0, 1.0, size), b).reshape(b.shape[:-1])

    def _null(self, x: Tensor) -> Tensor:
        if self.inverse is not None:
            return x - self.sparse.rmatvec(self.sparse.matvec(x) @ self.inverse)
        if self.iterative:
            return x - self.sparse.rmatvec(self._iterate(self.sparse.matvec(x)))
        y = _host(self.sparse.matvec(x))
        return x - self.sparse.rmatvec(_device(self.gram.solve(y.T).T, x))

    def _iterate(self, right: Tensor) -> Tensor:
        tolerance = _ITERATIVE * torch.finfo(right.dtype).eps
        return conjugate_gradient(
            lambda y: self.sparse.matvec(self.sparse.rmatvec(y)), right, tolerance=tolerance, max_steps=10 * self.rank
        )

    @_QUIET
    def _pinv(self, b: Tensor) -> Tensor:
        right = (self._into_range(_host(b)) / self.scale)[:, self.kept]
        x = self.gram.solve(right.T).T @ self.rows
        for _ in range(2):
            x = x + self.gram.solve(right.T - self.rows @ x.T).T @ self.rows
        return _device(x, b)

    @_QUIET
    def _pinv_transposed(self, x: Tensor) -> Tensor:
        y = np.zeros((x.shape[0], self.shape[0]))
        y[:, self.kept] = self.gram.solve(self.rows @ _host(x).T).T
        return _device(self._into_range(y / self.scale), x)

    def _into_range(self, y: np.ndarray) -> np.ndarray:
        """Project `(B, m)` onto the range of `A`: remove its components along the relations (in the units of A)."""
        if self.relations_gram is None:
            return y
        along = (y / self.scale) @ self.relations
        return y - (self.relations @ self.relations_gram.solve(along.T)).T / self.scale


def sparse_factor(
    matrix: Any,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    accuracy: float = 1e-6,
    iterative: bool | None = None,
) -> SparseRows:
    """Factorise a SciPy CSR matrix (m, n), float64.

    Args:
        matrix: the SciPy matrix.
        dtype: in which products with it are computed.
        device: where they are.
        accuracy: relative error of a solve with `A A^T` that is accepted; its condition number times the rounding.
        iterative: whether projections solve by conjugate gradients; None: on an accelerator, without a stored inverse.

    Raises:
        ValueError: the matrix is zero.
        IllConditionedRows: it is too ill conditioned for `A A^T`.
    """
    if matrix.nnz == 0:
        raise ValueError("AffineSet: the sparse matrix has no non-zero entry.")
    scale = _row_norms(matrix)
    nonzero = np.flatnonzero(scale)
    scale[scale == 0] = 1.0
    scaled = matrix.multiply(1 / scale[:, None]).tocsr()
    kept = nonzero[_independent(scaled[nonzero])]
    rows = scaled[kept]
    gram = _factor(rows @ rows.T)
    _check_accuracy(rows, gram, accuracy)
    dropped = np.setdiff1d(np.arange(matrix.shape[0]), kept)
    relations = _relations(rows, gram, scaled[dropped], kept, dropped, dtype)
    relations_gram = None
    if len(dropped):
        weighted = relations.multiply(1 / scale[:, None])
        relations_gram = _factor(weighted.T @ weighted)
    inverse = None if iterative else _inverse(rows, dtype, device)
    if iterative is None:
        iterative = inverse is None and torch.device(device).type != "cpu"
    return SparseRows(
        matrix=matrix,
        shape=matrix.shape,
        rank=len(kept),
        sparse=SparseMatrix.of(rows, dtype, device),
        kept=kept,
        scale=scale,
        rows=rows,
        gram=gram,
        inverse=inverse,
        iterative=iterative,
        relations=relations,
        relations_gram=relations_gram,
    )


def _independent(rows: Any) -> np.ndarray:
    """Numbers of a maximal set of independent rows (of norm one): those with a pivot that is not rounding."""
    import scipy.sparse as sp

    lu = _factor(rows @ rows.T + _NUDGE * sp.identity(rows.shape[0]))
    return np.flatnonzero(lu.U.diagonal()[lu.perm_r] > _DEPENDENT)


def _inverse(rows: Any, dtype: torch.dtype, device: torch.device | str) -> Tensor | None:
    """`(A A^T)^{-1}`, or None where it is large, or loses more than the root of the dtype's precision."""
    if rows.shape[0] > _SMALL:
        return None
    values, vectors = np.linalg.eigh((rows @ rows.T).toarray())
    if values[-1] > values[0] * torch.finfo(dtype).eps ** -0.6:
        return None
    return torch.as_tensor((vectors / values) @ vectors.T, dtype=dtype, device=device)


def _check_accuracy(rows: Any, gram: Any, accuracy: float) -> None:
    """Refuse a factor that does not solve: the condition number of `A A^T` is the square of that of `A`."""
    expected = np.ones(rows.shape[0])
    error = np.abs(gram.solve(rows @ (rows.T @ expected)) - expected).max()
    if not error < accuracy:
        raise IllConditionedRows(
            f"AffineSet: the rows of the sparse matrix are too ill conditioned to be solved through A A^T (relative error "
            f"{error:.1e}, permitted {accuracy:.0e}); pass a dense A, or rescale the equations."
        )


def _relations(rows: Any, gram: Any, dependent: Any, kept: np.ndarray, dropped: np.ndarray, dtype: torch.dtype) -> Any:
    """One column for each dropped row: 1 there, and minus the coefficients that express it by the kept rows."""
    import scipy.sparse as sp

    # What a row left out may be off by: the rounding of A in its own dtype, or of the factor.
    tolerance = max(1e-11, 100 * torch.finfo(dtype).eps)
    columns = []
    for start in range(0, len(dropped), _CHUNK):
        part = dependent[start : start + _CHUNK]
        coefficients = gram.solve((rows @ part.T).toarray())
        coefficients += gram.solve((rows @ (part - sp.csr_array(coefficients.T) @ rows).T).toarray())
        # Noise goes, so that the relations stay sparse: the dependent row of a connected graph needs all others, a
        # duplicate row needs one.
        coefficients = sp.csc_array(np.where(np.abs(coefficients) > 1e-13, coefficients, 0.0))
        error = part - coefficients.T @ rows
        if abs(error).max() > tolerance:
            raise IllConditionedRows(
                "AffineSet: the rows of the sparse matrix are too close to dependent to be told apart in A A^T (a row left "
                f"out is off by {abs(error).max():.1e}); pass a dense A, or rescale the equations."
            )
        columns.append(-coefficients)
    size = (len(kept) + len(dropped), len(dropped))
    if not columns:
        return sp.csc_array(size)
    order = np.argsort(np.concatenate([kept, dropped]))
    return sp.vstack([sp.hstack(columns), sp.identity(len(dropped))]).tocsr()[order].tocsc()


def _factor(gram: Any) -> Any:
    """SuperLU in symmetric mode without pivoting: for a positive definite matrix as good as Cholesky."""
    from scipy.sparse.linalg import splu

    return splu(
        gram.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True, "Equil": False}
    )


def _row_norms(matrix: Any) -> np.ndarray:
    return np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())


def _host(x: Tensor) -> np.ndarray:
    return x.detach().to(device="cpu", dtype=torch.float64).numpy()


def _device(y: np.ndarray, like: Tensor) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(y), dtype=like.dtype, device=like.device)
