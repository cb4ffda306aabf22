"""Euclidean norm `w |x|`, not squared. Parikh and Boyd, Proximal Algorithms (2014), section 6.5.1: block thresholding."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractFunction, Scalar


@final
@dataclass(frozen=True, eq=False)
class L2Norm(AbstractFunction):
    """The function `g(x) = weight |x|_2` over all entries of a sample; `prox(x, s) = max(1 - s weight / |x|, 0) x`.

    Args:
        weight: >= 0, a number or one value a sample `(B,)`.

    Raises:
        ValueError: a constant weight is negative. A learned or per-sample negative weight gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.L2Norm(1.0).prox(torch.tensor([[3.0, 4.0]]), 2.5)
        tensor([[1.5000, 2.0000]])
    """

    weight: Scalar = field(default=1.0, metadata=SCALAR)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", nonnegative(self.weight, "L2Norm.weight", SCALAR))

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """`max(1 - step weight / |x|, 0) x`."""
        threshold = step * self.weight
        below = _batch.expand(_batch.norm(x) <= threshold, x)
        # Below the threshold the unused branch gets ones: the norm has no second derivative at zero.
        above = torch.where(below, 1.0, x)
        return torch.where(below, 0.0, above - above * _batch.expand(threshold / _batch.norm(above), x))

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`weight |x|`."""
        return self.weight * _batch.norm(x)
