"""Simplex `{x >= 0, sum x = total}`. Held, Wolfe and Crowder (1974); Duchi et al., ICML 2008, figure 1: sort, then shift."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractSet, Scalar


def simplex_threshold(v: Float[Tensor, "B n"], total: Scalar) -> Float[Tensor, "B 1"]:
    """The `theta` with `sum_i max(v_i - theta, 0) = total`, by sorting.

    The support is found without a graph; `theta` is then the mean of the support less `total / |support|`, so that its
    derivative is exact (the support is locally constant) and cheap (no sort is differentiated).
    """
    total = _batch.expand(total, v)
    with torch.no_grad():
        # Relative to the largest entry, so that a large common offset costs no digits.
        largest = v.amax(-1, keepdim=True)
        ranked = (v - largest).sort(-1, descending=True).values
        rank = torch.arange(1, v.shape[-1] + 1, device=v.device)
        candidate = (ranked.cumsum(-1) - total) / rank
        size = (ranked > candidate).sum(-1, keepdim=True).clamp(min=1)
        outside = v - largest < candidate.gather(-1, size - 1)
    support = (~outside).sum(-1, keepdim=True)
    return largest + (torch.where(outside, 0, v - largest).sum(-1, keepdim=True) - total) / support


@final
@dataclass(frozen=True, eq=False)
class Simplex(AbstractSet):
    """The simplex `{x : x >= 0, sum_i x_i = total}` over all entries of a sample.

    The projection is `max(x - theta, 0)` with the shift `theta` that makes the sum right. Its derivative on the support
    `S` of the result is `I - 1 1^T / |S|`, exact off the kinks where an entry enters or leaves `S`.

    Args:
        total: the sum, >= 0; a number or one value a sample `(B,)`.

    Raises:
        ValueError: a constant total is negative. A learned or per-sample total that is negative gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Simplex().project(torch.tensor([[1.0, 1.5, -3.0]]))
        tensor([[0.2500, 0.7500, 0.0000]])
    """

    total: Scalar = field(default=1.0, metadata=SCALAR)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", nonnegative(self.total, "Simplex.total", SCALAR))

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`max(x - theta, 0)`."""
        flat = _batch.flatten(x)
        return (flat - simplex_threshold(flat, self.total)).clamp(min=0).reshape(x.shape)
