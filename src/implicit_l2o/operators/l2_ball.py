"""Euclidean ball `{x : |x - c| <= r}`. Bauschke and Combettes, Convex Analysis (2017), example 3.18."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR, VECTOR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractSet, Array, Scalar


@final
@dataclass(frozen=True, eq=False)
class L2Ball(AbstractSet):
    """The ball `{x : |x - center|_2 <= radius}`, the norm over all entries of a sample.

    The projection is `x` inside and `center + radius (x - center) / |x - center|` outside.

    Args:
        radius: >= 0, a number or one value a sample `(B,)`.
        center: a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.

    Raises:
        ValueError: a constant radius is negative. A learned or per-sample negative radius gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.L2Ball(1.0, center=torch.tensor([1.0, 0.0])).project(torch.tensor([[4.0, 4.0]]))
        tensor([[1.6000, 0.8000]])
    """

    radius: Scalar = field(metadata=SCALAR)
    center: Array = field(default=0.0, metadata=VECTOR)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", nonnegative(self.radius, "L2Ball.radius", SCALAR))

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x`, pulled back to the sphere if outside."""
        offset = x - self.center
        inside = _batch.expand(_batch.norm(offset) <= self.radius, x)
        # Inside, the unused branch gets ones: the norm has no second derivative at zero, and NaN would leak through where.
        outer = torch.where(inside, 1.0, offset)
        pulled = self.center + outer * _batch.expand(self.radius / _batch.norm(outer), x)
        return torch.where(inside, x, pulled)
