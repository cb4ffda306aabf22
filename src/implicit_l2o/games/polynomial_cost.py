"""Link costs as a monotone operator on flows, differentiable in their parameters; the potential is Beckmann's objective.

Beckmann, McGuire and Winsten, Studies in the Economics of Transportation (1956), chapter 3.
"""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o._batch import MATRIX, VECTOR
from implicit_l2o.operators.base import AbstractSmooth, Scalar


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class PolynomialCost(AbstractSmooth):
    """Times `t_e(v) = constant_e + sum_k coefficient_ek (v_e / scale_e)^power_k`, and Beckmann's `sum_e integral_0^v_e t_e`.

    A polynomial is not Lipschitz on all flows, and a forward step needs a constant. So above `limit` every time goes on
    along its tangent, and below 0 it stays what it is at 0: nothing changes where flows are within.

    Args:
        constant: at flow 0; `(E,)` shared or `(B, E)`.
        coefficient: at least 0, one column a term; `(E, K)` shared or `(B, E, K)`.
        scale: positive flows, `(E,)` or `(B, E)`.
        power: of the terms, each at least 1.
        limit: flow above which times go on along their tangents, `(E,)` or `(B, E)`; infinite by default, which leaves only
            powers of 1 a Lipschitz constant.

    Raises:
        ValueError: a power is below 1, or there are not as many as columns.

    Example:
        >>> import torch
        >>> from implicit_l2o.games import PolynomialCost
        >>> one = torch.ones(1)
        >>> cost = PolynomialCost(
        ...     constant=2 * one, coefficient=0.3 * one[None], scale=10 * one, power=(4.0,), limit=40 * one)
        >>> flow = torch.tensor([[20.0]])
        >>> cost.apply(flow), cost.value(flow), round(cost.lipschitz, 3)
        (tensor([[6.8000]]), tensor([59.2000]), 7.68)
    """

    constant: Tensor = field(metadata=VECTOR)
    coefficient: Tensor = field(metadata=MATRIX)
    scale: Tensor = field(metadata=VECTOR)
    power: tuple[float, ...]
    limit: Tensor | float = field(default=math.inf, metadata=VECTOR)

    def __post_init__(self) -> None:
        if any(not p >= 1 for p in self.power) or not self.power:
            raise ValueError(f"PolynomialCost needs powers of at least 1; got {self.power}.")
        if self.coefficient.ndim not in (2, 3) or self.coefficient.shape[-1] != len(self.power):
            raise ValueError(
                f"PolynomialCost has {len(self.power)} powers, so coefficient must be (E, {len(self.power)}) or that for "
                f"each sample; got {tuple(self.coefficient.shape)}."
            )

    def apply(self, x: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """Times at flows `(B, E)`."""
        inner, outer = self._split(x)
        time = self.constant
        for k, p in enumerate(self.power):
            time = time + self.coefficient[..., k] * self._monomial(inner, outer, p)
        return time.expand(x.shape)

    def value(self, x: Float[Tensor, "B E"]) -> Float[Tensor, " B"]:
        """Beckmann's objective, per sample."""
        inner, outer = self._split(x)
        total = self.constant * x
        for k, p in enumerate(self.power):
            ratio = inner / self.scale
            # The integral up to the limit, and from there along the tangent.
            below = inner * ratio**p / (p + 1)
            if outer is not None:
                below = below + outer * (ratio**p + 0.5 * p * ratio ** (p - 1) * outer / self.scale)
            total = total + self.coefficient[..., k] * below
        return total.sum(-1)

    @property
    def batch(self) -> int:
        """How many samples the parameters are for; 1 where all are shared."""
        fields = ((self.constant, 1), (self.coefficient, 2), (self.scale, 1), (torch.as_tensor(self.limit), 1))
        return max(len(value) if value.ndim > least else 1 for value, least in fields)

    def slope(self, x: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """Derivative of the times in their own flows."""
        inner, _ = self._split(x)
        slope = torch.zeros_like(x)
        for k, p in enumerate(self.power):
            slope = slope + self.coefficient[..., k] * p * (inner / self.scale) ** (p - 1) / self.scale
        return slope

    @property
    def steepest(self) -> Float[Tensor, "*B E"]:
        """The largest slope of every link's time, reached at `limit`; infinite where there is none."""
        top = torch.as_tensor(self.limit).to(self.scale)
        total = self.scale.new_zeros(())
        for k, p in enumerate(self.power):
            reach = torch.ones_like(self.scale) if p == 1 else p * (top / self.scale) ** (p - 1)
            part = self.coefficient[..., k] / self.scale
            total = total + torch.where(part > 0, part * reach, 0.0)
        return total.detach()

    @property
    def lipschitz(self) -> Scalar | None:
        """The largest slope, a number or per sample; None where there is none."""
        largest = self.steepest.amax(-1)
        if not bool(torch.isfinite(largest).all()):
            return None
        return float(largest) if largest.ndim == 0 else largest

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The flow up to the limit, and what is above it."""
        inner = x.clamp_min(0.0)
        if isinstance(self.limit, float) and math.isinf(self.limit):
            return inner, None
        capped = torch.minimum(inner, torch.as_tensor(self.limit).to(x))
        return capped, inner - capped

    def _monomial(self, inner: Tensor, outer: Tensor | None, p: float) -> Tensor:
        ratio = inner / self.scale
        if outer is None:
            return ratio**p
        return ratio**p + p * ratio ** (p - 1) * outer / self.scale
