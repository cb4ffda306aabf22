"""A linear operator with samples of another shape on its output side."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o


@final
@dataclass(frozen=True, eq=False)
class Reshaped(il2o.AbstractLinearOperator):
    """`operator` with outputs `(B, *shape)` instead of `(B, m)`."""

    operator: il2o.AbstractLinearOperator
    shape: tuple[int, ...]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Of the operator."""
        return self.operator.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return self.shape

    @property
    def norm_bound(self) -> float:
        """Of the operator."""
        return self.operator.norm_bound

    def apply(self, x: Float[Tensor, "B *in"]) -> Float[Tensor, "B *out"]:
        """`K x`."""
        return self.operator.apply(x).reshape(x.shape[0], *self.shape)

    def adjoint(self, y: Float[Tensor, "B *out"]) -> Float[Tensor, "B *in"]:
        """`K^T y`."""
        return self.operator.adjoint(y.flatten(1))
