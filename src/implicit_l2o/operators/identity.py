"""The identity as a linear operator: it makes `l(x)` a case of `l(K x)`."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators.base import AbstractLinearOperator


@final
@dataclass(frozen=True, eq=False)
class Identity(AbstractLinearOperator):
    """The linear operator `x -> x`.

    Args:
        shape: shape of one sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Identity((2,)).apply(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    shape: tuple[int, ...]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return tuple(self.shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return tuple(self.shape)

    @property
    def norm_bound(self) -> float:
        """One."""
        return 1.0

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x`."""
        return x

    def adjoint(self, y: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`y`."""
        return y
