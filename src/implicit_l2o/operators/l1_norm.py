"""Weighted l1 norm `sum_i w_i |x_i|`. Donoho (1995): its prox is soft thresholding."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import VECTOR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractFunction, Array, Scalar


@final
@dataclass(frozen=True, eq=False)
class L1Norm(AbstractFunction):
    """The function `g(x) = sum_i weight_i |x_i|`; `prox(x, s) = sign(x) max(|x| - s weight, 0)`.

    Args:
        weight: >= 0, a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`
            (one weight a sample: `(B, 1)`).

    Raises:
        ValueError: a constant weight is negative. A learned or per-sample negative weight gives NaN in its entry.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.L1Norm(0.5).prox(torch.tensor([[2.0, -0.25]]), 1.0)
        tensor([[1.5000, 0.0000]])
    """

    weight: Array = field(default=1.0, metadata=VECTOR)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", nonnegative(self.weight, "L1Norm.weight", VECTOR))

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """Soft thresholding at `step * weight`: `x` less its clamp, so a NaN passes and zeros are exact."""
        threshold = _batch.expand(step, x) * self.weight
        return x - x.clamp(-threshold, threshold)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`sum_i weight_i |x_i|`."""
        return _batch.flatten(torch.abs(x) * self.weight).sum(-1)
