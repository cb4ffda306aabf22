"""l1 ball `{x : |x - c|_1 <= r}`. Duchi et al., ICML 2008, section 4: soft thresholding at the simplex threshold."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR, VECTOR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractSet, Array, Scalar
from implicit_l2o.operators.simplex import simplex_threshold


@final
@dataclass(frozen=True, eq=False)
class L1Ball(AbstractSet):
    """The ball `{x : sum_i |x_i - center_i| <= radius}`.

    The projection soft-thresholds `x - center` at `max(theta, 0)`, where `theta` projects `|x - center|` onto the simplex
    of sum `radius`; inside the ball `theta <= 0`, so `x` is returned as it is.

    Args:
        radius: >= 0, a number or one value a sample `(B,)`.
        center: a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.

    Raises:
        ValueError: a constant radius is negative. A learned or per-sample negative radius gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.L1Ball(1.0).project(torch.tensor([[2.0, -1.5, 0.0]]))
        tensor([[ 0.7500, -0.2500,  0.0000]])
    """

    radius: Scalar = field(metadata=SCALAR)
    center: Array = field(default=0.0, metadata=VECTOR)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", nonnegative(self.radius, "L1Ball.radius", SCALAR))

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x` less what exceeds the threshold, entry by entry."""
        offset = _batch.flatten(x - self.center)
        threshold = simplex_threshold(offset.abs(), self.radius).clamp(min=0)
        return x - offset.clamp(-threshold, threshold).reshape(x.shape)
