"""A matrix as a linear operator, dense or sparse. Sparse products carry their own derivative (`_linear_map`)."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators._sparse import SparseMatrix, is_sparse, sparse_norm_bound, to_scipy, torch_dtype
from implicit_l2o.operators.base import AbstractLinearOperator


@final
@dataclass(frozen=True, eq=False)
class Matrix(AbstractLinearOperator):
    """The linear operator `x -> A x` on flattened samples.

    A dense `A` may be learned: the products differentiate with respect to `x` and to `A`. A sparse `A` is a constant, kept
    as CSR together with its transpose and differentiated by the transposed product, any number of times.

    Args:
        A: `(m, n)`: a dense tensor, a sparse tensor (CSR, COO, ...) or a SciPy sparse matrix. Shared by the batch.
        sample_shape: shape of one input sample, with `n` entries; default `(n,)`.

    Raises:
        ValueError: `A` is not two-dimensional; a sparse `A` requires grad or is not finite; `sample_shape` does not have
            `n` entries.

    Example:
        >>> import scipy.sparse, torch, implicit_l2o as il2o
        >>> operator = il2o.Matrix(scipy.sparse.csr_array([[1.0, -1.0, 0.0]]))
        >>> operator.apply(torch.tensor([[5.0, 3.0, 1.0]], dtype=torch.float64))
        tensor([[2.]], dtype=torch.float64)
    """

    A: Any
    sample_shape: tuple[int, ...] | None = field(default=None, kw_only=True)
    _sparse: SparseMatrix | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.A, Tensor) and not is_sparse(self.A):
            raise TypeError(f"Matrix takes a tensor or a SciPy sparse matrix; got {type(self.A).__name__}.")
        if len(self.A.shape) != 2:
            raise ValueError(
                f"Matrix needs A of shape (m, n), shared by the batch; got {tuple(self.A.shape)}. A norm bound over "
                "per-sample matrices would make one sample's step depend on the others."
            )
        if self.sample_shape is not None and math.prod(self.sample_shape) != self.A.shape[1]:
            raise ValueError(f"Matrix has n={self.A.shape[1]} columns; got sample_shape={tuple(self.sample_shape)}.")
        if is_sparse(self.A):
            device = self.A.device if isinstance(self.A, Tensor) else "cpu"
            matrix = to_scipy(self.A, "Matrix")
            object.__setattr__(self, "_sparse", SparseMatrix.of(matrix, torch_dtype(self.A), device))
            object.__setattr__(self, "A", matrix)  # unlike a CSR tensor it can be copied

    @property
    def in_shape(self) -> tuple[int, ...]:
        """`sample_shape`, or `(n,)`."""
        return (self.A.shape[1],) if self.sample_shape is None else tuple(self.sample_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`(m,)`."""
        return (self.A.shape[0],)

    @property
    def norm_bound(self) -> float:
        """The spectral norm of a dense `A`; for a sparse one a proven bound, tight where its entries have one sign."""
        # A learned matrix may change in place between two steps of an optimiser: its norm is not kept.
        return self._bound() if isinstance(self.A, Tensor) and self.A.requires_grad else self._fixed_norm_bound

    @cached_property
    def _fixed_norm_bound(self) -> float:
        return self._bound()

    def _bound(self) -> float:
        if self._sparse is not None:
            return sparse_norm_bound(self.A)
        A = self.A.detach().double()
        if not torch.isfinite(A).all():
            return math.nan
        gram = A @ A.mT if A.shape[0] <= A.shape[1] else A.mT @ A
        largest = float(torch.linalg.eigvalsh(gram)[-1])
        return math.sqrt(max(largest, 0.0)) * (1 + 8 * min(A.shape) * torch.finfo(A.dtype).eps)

    def apply(self, x: Float[Tensor, "B *in"]) -> Float[Tensor, "B m"]:
        """`A x`."""
        flat = _batch.flatten(x)
        return flat @ self.A.mT if self._sparse is None else self._sparse.apply(flat)

    def adjoint(self, y: Float[Tensor, "B m"]) -> Float[Tensor, "B *in"]:
        """`A^T y`."""
        flat = y @ self.A if self._sparse is None else self._sparse.adjoint(y)
        return flat.reshape(y.shape[0], *self.in_shape)
