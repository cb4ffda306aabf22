"""Least squares `weight |A x - b|^2 / 2`. Boyd and Vandenberghe, Convex Optimization (2004), section 1.2.1."""

from dataclasses import dataclass, field
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import DATA, SCALAR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractLinearOperator, AbstractSmooth, Scalar
from implicit_l2o.operators.matrix import Matrix


@final
@dataclass(frozen=True, eq=False)
class LeastSquares(AbstractSmooth):
    """The function `f(x) = weight |A x - b|^2 / 2`; its gradient is `weight A^T (A x - b)`.

    `lipschitz` is `weight * A.norm_bound^2`.

    Args:
        A: a linear operator; a tensor or SciPy sparse matrix is wrapped in `Matrix` (make one and pass
            it to keep the norm of a constant matrix from one forward pass to the next).
        b: the data, `out_shape` shared if that is `(m,)`, or `(1 or B, *out_shape)`.
        weight: >= 0, a number or one value a sample `(B,)`.

    Raises:
        ValueError: `b` does not fit `A`; a constant weight is negative (a learned or per-sample negative weight gives NaN).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> cost = il2o.LeastSquares(torch.tensor([[1.0, 1.0]]), torch.tensor([1.0]))
        >>> cost.value(torch.tensor([[2.0, 1.0]])), cost.apply(torch.tensor([[2.0, 1.0]]))
        (tensor([2.]), tensor([[2., 2.]]))
    """

    A: Any
    b: Tensor = field(metadata=DATA)
    weight: Scalar = field(default=1.0, metadata=SCALAR)

    def __post_init__(self) -> None:
        if not isinstance(self.A, AbstractLinearOperator):
            object.__setattr__(self, "A", Matrix(self.A))
        out = self.A.out_shape
        if tuple(self.b.shape) != out and tuple(self.b.shape[1:]) != out:
            raise ValueError(
                f"LeastSquares: A maps to {out}, so b must have that shape, with or without a batch dimension before it; "
                f"got {tuple(self.b.shape)}."
            )
        if tuple(self.b.shape) == out and len(out) > 1:
            object.__setattr__(self, "b", self.b[None])
        object.__setattr__(self, "weight", nonnegative(self.weight, "LeastSquares.weight", SCALAR))

    @property
    def lipschitz(self) -> Scalar:
        """`weight * A.norm_bound^2`, per sample where the weight is; detached."""
        weight = self.weight.detach() if isinstance(self.weight, Tensor) else self.weight
        return weight * self.A.norm_bound**2

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`weight A^T (A x - b)`."""
        residual = self.A.apply(x) - self.b
        return self.A.adjoint(_batch.expand(self.weight, residual) * residual)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`weight |A x - b|^2 / 2`."""
        residual = self.A.apply(x) - self.b
        return self.weight * _batch.dot(residual, residual) / 2
