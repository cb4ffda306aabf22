"""Linear cost `w . x`: its gradient is constant."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import VECTOR
from implicit_l2o.operators.base import AbstractSmooth, Scalar


@final
@dataclass(frozen=True, eq=False)
class LinearCost(AbstractSmooth):
    """The function `f(x) = <linear, x>`; its gradient is `linear`, so any forward step is safe (`lipschitz` is 0).

    Args:
        linear: a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.LinearCost(torch.tensor([1.0, 2.0])).value(torch.tensor([[3.0, 4.0]]))
        tensor([11.])
    """

    linear: Tensor = field(metadata=VECTOR)

    @property
    def lipschitz(self) -> Scalar:
        """Zero: the gradient is constant."""
        return 0.0

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`linear`, once a sample."""
        return self.linear.expand_as(x)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`<linear, x>`."""
        return _batch.dot(self.linear.expand_as(x), x)
