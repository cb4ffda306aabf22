"""Maximum-norm ball `{x : max_i |x_i - c_i| <= r}`: a box around c. Parikh and Boyd, Proximal Algorithms (2014), 6.2.4."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR, VECTOR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractSet, Array, Scalar


@final
@dataclass(frozen=True, eq=False)
class LInfBall(AbstractSet):
    """The ball `{x : max_i |x_i - center_i| <= radius}`; the projection clamps each entry to `center -+ radius`.

    Args:
        radius: >= 0, a number or one value a sample `(B,)`.
        center: a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.

    Raises:
        ValueError: a constant radius is negative. A learned or per-sample negative radius gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.LInfBall(1.0, center=2.0).project(torch.tensor([[0.0, 2.5]]))
        tensor([[1.0000, 2.5000]])
    """

    radius: Scalar = field(metadata=SCALAR)
    center: Array = field(default=0.0, metadata=VECTOR)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", nonnegative(self.radius, "LInfBall.radius", SCALAR))

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`min(max(x, center - radius), center + radius)`."""
        radius = _batch.expand(self.radius, x)
        return x.clamp(self.center - radius, self.center + radius)
