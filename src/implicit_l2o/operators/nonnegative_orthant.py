"""Nonnegative orthant `{x : x >= 0}`. Parikh and Boyd, Proximal Algorithms (2014), section 6.3.1."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators.base import AbstractSet


@final
@dataclass(frozen=True, eq=False)
class NonnegativeOrthant(AbstractSet):
    """The cone `{x : x >= 0}`; the projection is `max(x, 0)`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.NonnegativeOrthant().project(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`max(x, 0)`."""
        return x.clamp(min=0)
