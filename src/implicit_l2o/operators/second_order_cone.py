"""Second-order cone `{(t, u) : |u| <= t}`. Parikh and Boyd, Proximal Algorithms (2014), section 6.3.2."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators.base import AbstractSet


@final
@dataclass(frozen=True, eq=False)
class SecondOrderCone(AbstractSet):
    """The cone `{(t, u) : |u|_2 <= t}`; `t` is the FIRST entry of the (flattened) sample, `u` the others.

    The projection is `(t, u)` where `|u| <= t`, `0` where `|u| <= -t` (the polar cone), and
    `(t + |u|) / 2 (1, u / |u|)` otherwise.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.SecondOrderCone().project(torch.tensor([[1.0, 3.0, 4.0]]))
        tensor([[3.0000, 1.8000, 2.4000]])
    """

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The nearest point of the cone."""
        flat = _batch.flatten(x)
        t, u = flat[:, :1], flat[:, 1:]
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        inside, polar = length <= t, length <= -t
        # Where the middle case is not used, u is replaced by ones: the norm has no second derivative at zero.
        u = torch.where(inside | polar, 1.0, u)
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        middle = torch.cat([torch.ones_like(t), u / length], dim=-1) * ((t + length) / 2)
        return torch.where(inside, flat, torch.where(polar, 0.0, middle)).reshape(x.shape)
