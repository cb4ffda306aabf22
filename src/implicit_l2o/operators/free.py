"""The whole space: no constraint at all. Its indicator is the zero function, so its prox is the identity."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators.base import AbstractSet


@final
@dataclass(frozen=True, eq=False)
class Free(AbstractSet):
    """The whole space: the projection is the identity. It fills the free blocks of a `ProductSet` or `SeparableSum`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Free().project(torch.tensor([[-1.0, 2.0]]))
        tensor([[-1.,  2.]])
    """

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x`."""
        return x
