"""Half-space `{x : <a, x> <= beta}`. Bauschke and Combettes, Convex Analysis (2017), example 29.20."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR, VECTOR
from implicit_l2o.operators._parameters import is_constant
from implicit_l2o.operators.base import AbstractSet, Scalar


@final
@dataclass(frozen=True, eq=False)
class HalfSpace(AbstractSet):
    """The half-space `{x : <normal, x> <= offset}`.

    The projection is `x - max(<a, x> - beta, 0) / |a|^2 a`.

    Args:
        normal: `a`, a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.
        offset: `beta`, a number or one value a sample `(B,)`.

    Raises:
        ValueError: a constant normal is zero. A learned or per-sample normal that vanishes gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.HalfSpace(torch.ones(2), 1.0).project(torch.tensor([[2.0, 1.0]]))
        tensor([[1., 0.]])
    """

    normal: Tensor = field(metadata=VECTOR)
    offset: Scalar = field(metadata=SCALAR)

    def __post_init__(self) -> None:
        if is_constant(self.normal, VECTOR) and not bool(torch.isfinite(self.normal).all() & (self.normal != 0).any()):
            raise ValueError(f"HalfSpace needs a finite non-zero normal; got {self.normal.tolist()}.")

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x - max(<a, x> - beta, 0) / |a|^2 a`."""
        normal = self.normal.expand_as(x)
        excess = (_batch.dot(normal, x) - self.offset).clamp(min=0)
        return x - _batch.expand(excess / _batch.dot(normal, normal), x) * normal
