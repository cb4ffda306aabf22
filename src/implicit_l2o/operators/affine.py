"""Affine set `{x : A x = b}`. Bauschke and Combettes, Convex Analysis (2017), example 29.17: `P(x) = x - A^+ (A x - b)`."""

from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import DATA
from implicit_l2o.operators._factor import AbstractAffineFactor
from implicit_l2o.operators._sparse import is_sparse, to_scipy, torch_dtype
from implicit_l2o.operators.affine_dense import dense_factor
from implicit_l2o.operators.affine_grid import GridFlows, GridShape
from implicit_l2o.operators.affine_sparse import IllConditionedRows, sparse_factor
from implicit_l2o.operators.base import AbstractSet

_PROJECTOR = 400  # columns up to which one product with the stored projector beats every other form (measured, CPU)
_FEW_ROWS = 16  # up to so many equations, thin dense products beat a sparse factor
_DENSE_ENTRIES = 4_000_000  # a matrix of so many entries is decomposed in seconds
_DENSITY = 0.05  # a large dense matrix with a smaller share of non-zeros is factorised as sparse


def affine_factor(
    A: Any, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> AbstractAffineFactor:
    """Factorise the rows of `A` once, for any number of `AffineSet`s with that `A`.

    By size and structure: a stored projector for n <= 400, cosine transforms for the incidence matrix of a larger grid
    (arcs in any order), an orthonormal basis of the rows or a stored projector (the cheaper) for other large dense
    matrices, a sparse factor of `A A^T` for other large sparse ones (its triangular solves run on the host in float64),
    with the dense forms as a fallback for rows too ill conditioned for `A A^T`. Dependent, duplicate and zero rows are
    found and handled by each.

    Args:
        A: `(m, n)`: a dense tensor, a sparse tensor or a SciPy sparse matrix.
        dtype: of the computation, for a SciPy matrix; default its own. A tensor has its own.
        device: likewise; default the CPU.

    Raises:
        TypeError: `A` is something else.
        ValueError: `A` is not a matrix, is empty or not finite; a sparse `A` requires grad, is zero, or is too large for a
            dense factor and too ill conditioned for a sparse one.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> factor = il2o.affine_factor(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
        >>> factor.shape, factor.rank
        ((2, 2), 1)
    """
    if not isinstance(A, Tensor) and not is_sparse(A):
        raise TypeError(f"AffineSet takes A as a tensor or a SciPy sparse matrix; got {type(A).__name__}.")
    if len(A.shape) != 2 or 0 in A.shape:
        raise ValueError(
            f"AffineSet needs A of shape (m, n) with m, n >= 1, shared by the batch; got {tuple(A.shape)}."
        )
    if isinstance(A, Tensor) and not A.is_floating_point():
        raise ValueError(f"AffineSet needs A in floating point; got {A.dtype}.")
    if isinstance(A, Tensor):
        dtype, device = A.dtype, A.device
    dtype, device = dtype or torch_dtype(A), device or torch.device("cpu")
    if is_sparse(A):
        matrix = to_scipy(A, "AffineSet")
        if A.shape[1] > _PROJECTOR and A.shape[0] > _FEW_ROWS:
            return _sparse_factor(matrix, dtype, device)
        return dense_factor(torch.as_tensor(matrix.toarray(), dtype=dtype, device=device), _PROJECTOR)
    if not torch.isfinite(A).all():
        raise ValueError("AffineSet: A has entries that are NaN or infinite.")
    few = int((A != 0).sum()) < _DENSITY * A.numel()
    if few and A.shape[1] > _PROJECTOR and A.shape[0] > _FEW_ROWS and not A.requires_grad and A.device.type == "cpu":
        return _sparse_factor(to_scipy(A, "AffineSet"), dtype, device)
    return dense_factor(A, _PROJECTOR)


def _sparse_factor(matrix: Any, dtype: torch.dtype, device: torch.device) -> AbstractAffineFactor:
    """The sparse factor, or a dense one where the rows are too ill conditioned for it and few enough."""
    grid = GridShape.of(matrix)
    if grid is not None:
        return GridFlows.of(grid, dtype, device)
    if matrix.shape[0] * matrix.shape[1] > _DENSE_ENTRIES:
        return sparse_factor(matrix, dtype, device)
    try:
        return sparse_factor(matrix, dtype, device, accuracy=1e-10)
    except IllConditionedRows:
        return dense_factor(torch.as_tensor(matrix.toarray(), dtype=dtype, device=device), _PROJECTOR)


@final
@dataclass(frozen=True, eq=False)
class AffineSet(AbstractSet):
    """The affine set `{x : A x = b}`; it acts on flattened samples.

    The projection is `(I - A^+ A) x + A^+ b`, so its derivative projects the cotangent onto null(A), and the derivative
    with respect to `b` is `(A^+)^T`. It depends on `A` only through the factor, which is made once:

        constraint = AffineSet(A, b)                    # factorises
        constraint.with_rhs(other_b)                    # reuses; nearly free, so do it every forward pass

    Args:
        A: `(m, n)`: a dense tensor, a sparse tensor, a SciPy sparse matrix (used in the dtype and on the device of `b`),
            or the result of `affine_factor`. Dependent, duplicate and zero rows are fine. A dense `A` may require grad
            (differentiated through its pseudo-inverse, while its rank is constant); a sparse one may not.
        b: `(m,)` shared, or `(1 or B, m)`; it may require grad.

    Raises:
        ValueError: shapes or dtypes do not fit; no `x` satisfies `A x = b` (the message names the sample and the
            residual; a NaN in `b` is no such case: it makes that sample NaN). Independent rows need no such check.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> budget = il2o.AffineSet(torch.ones(1, 2), torch.tensor([2.0]))
        >>> budget.project(torch.tensor([[2.0, 6.0]])).round(decimals=3)
        tensor([[-1.,  3.]])
        >>> each = budget.with_rhs(torch.tensor([[2.0], [8.0]]))
        >>> each.project(torch.tensor([[2.0, 6.0], [2.0, 6.0]])).round(decimals=3)
        tensor([[-1.,  3.],
                [ 2.,  6.]])
    """

    A: Any = field(repr=False)
    b: Tensor = field(metadata=DATA)
    factor: AbstractAffineFactor = field(init=False, repr=False)
    point: Tensor = field(init=False, repr=False, metadata=DATA)  # A^+ b, the point of least norm

    def __post_init__(self) -> None:
        factor = self.A
        if not isinstance(factor, AbstractAffineFactor):
            factor = affine_factor(self.A, dtype=self.b.dtype, device=self.b.device)
        m = factor.shape[0]
        if self.b.ndim not in (1, 2) or self.b.shape[-1] != m:
            raise ValueError(
                f"AffineSet: A has m={m} rows, so b must be ({m},) or (B, {m}); got {tuple(self.b.shape)}."
            )
        if self.b.dtype != factor.like.dtype or self.b.device != factor.like.device:
            raise ValueError(
                f"AffineSet: A is {factor.like.dtype} on {factor.like.device} but b is {self.b.dtype} on {self.b.device}; "
                "convert one of them."
            )
        # Outside autocast: a model may be built inside it, and a projection in half precision is not one.
        with _batch.without_autocast(self.b.device):
            if factor.rank < m:
                _check_consistent(factor, self.b)
            point = factor.solve(self.b)
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "A", factor if is_sparse(self.A) else self.A)  # a CSR tensor cannot be copied
        object.__setattr__(self, "point", point)

    def with_rhs(self, b: Float[Tensor, "*B m"]) -> "AffineSet":
        """The set `{x : A x = b}` for another `b`, with the same factor."""
        return AffineSet(self.factor, b)

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`(I - A^+ A) x + A^+ b`."""
        flat = _batch.flatten(x)
        if flat.shape[-1] != self.factor.shape[1]:
            raise ValueError(
                f"AffineSet: A has n={self.factor.shape[1]} columns; got samples of {flat.shape[-1]} entries."
            )
        return self.factor.project(flat, self.point).reshape(x.shape)


def _check_consistent(factor: AbstractAffineFactor, b: Tensor) -> None:
    gaps = torch.atleast_1d(factor.gap(b.detach()))
    # Two thirds of the digits of b must agree with the range of A.
    permitted = torch.finfo(b.dtype).eps ** (2 / 3)
    if not (gaps > permitted).any():
        return
    sample = int((gaps > permitted).nonzero()[0])
    which = f" of sample {sample}" if b.ndim == 2 else ""
    raise ValueError(
        f"AffineSet: no x satisfies A x = b: the rows of A are dependent (rank {factor.rank} of {factor.shape[0]}) and b"
        f"{which} contradicts them. With rows scaled to norm one, the residual |A x - b| / |b| is at least "
        f"{float(gaps[sample]):.3g} for every x; {permitted:.1e} is permitted."
    )
