"""Box `{x : lower <= x <= upper}`. Bauschke and Combettes, Convex Analysis (2017), prop. 29.3: project each entry."""

import math
from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o._batch import VECTOR
from implicit_l2o.operators._parameters import is_number, ordered
from implicit_l2o.operators.base import AbstractSet, Array


@final
@dataclass(frozen=True, eq=False)
class Box(AbstractSet):
    """The box `{x : lower <= x <= upper}`, entry by entry.

    The projection is `min(max(x, lower), upper)`. Its derivative is 1 for entries inside (bounds included) and 0 outside,
    where the entry's derivative with respect to the active bound is 1.

    Args:
        lower: a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.
        upper: the same.

    Raises:
        ValueError: constant bounds cross; the message names the entry. Where learned or per-sample bounds cross, the set
            is empty in that sample and its projection is NaN (the solve marks the sample `NONFINITE`).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Box(lower=0.0, upper=torch.tensor([1.0, 2.0])).project(torch.tensor([[-1.0, 3.0]]))
        tensor([[0., 2.]])
    """

    lower: Array = field(default=-math.inf, metadata=VECTOR)
    upper: Array = field(default=math.inf, metadata=VECTOR)

    def __post_init__(self) -> None:
        lower, upper = ordered(self.lower, self.upper, "Box", VECTOR)
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`min(max(x, lower), upper)`."""
        # Two clamps where the bounds are a number and a tensor: torch.clamp takes a pair of one kind only.
        above = x if is_number(self.lower, -math.inf) else x.clamp(min=self.lower)
        return above if is_number(self.upper, math.inf) else above.clamp(max=self.upper)
