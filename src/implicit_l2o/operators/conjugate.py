"""Convex conjugate `g*(y) = sup_x <x, y> - g(x)`. Its prox by Moreau (1965): `prox_{s g*}(y) = y - s prox_{g/s}(y / s)`."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators.base import AbstractProximable, Scalar


@final
@dataclass(frozen=True, eq=False)
class Conjugate(AbstractProximable):
    """The convex conjugate of a proximable term, known through its prox; what dual steps need.

    `prox(y, s) = y - s prox_g(y / s, 1 / s)`. For a set this is the prox of its support function, `y - s P(y / s)`.

    Args:
        term: `g`, convex.

    Raises:
        TypeError: `term` is not proximable.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Conjugate(il2o.L1Norm(1.0)).prox(torch.tensor([[0.5, 3.0]]), 2.0)  # projects onto |y| <= 1
        tensor([[0.5000, 1.0000]])
    """

    term: AbstractProximable

    def __post_init__(self) -> None:
        if not isinstance(self.term, AbstractProximable):
            raise TypeError(f"Conjugate takes an AbstractProximable; got {type(self.term).__name__}.")

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """`x - step prox_g(x / step, 1 / step)`."""
        scale = _batch.expand(step, x)
        inverse = torch.reciprocal(step) if isinstance(step, Tensor) else 1 / step
        return x - scale * self.term.prox(x / scale, inverse)
