"""A learned increasing function for each entry, with its integral: latencies `t_e(v_e; d)` of the links of a network.

Sums of smooth ramps, as in monotone networks with positive weights (Sill, "Monotonic Networks", 1998); squareplus has an
antiderivative in elementary functions, so Beckmann's objective needs no quadrature.
"""

import math
from dataclasses import dataclass, field
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o._batch import DATA, MATRIX
from implicit_l2o.operators.base import AbstractSmooth


@final
@dataclass(frozen=True, eq=False)
class IncreasingCost(AbstractSmooth):
    """`t_e(v) = base_e + sum_k weight_ek ramp_k(rate_e v + shift_ek)`: one increasing function for each entry of `v`.

    A ramp is `phi(t) = (t + sqrt(t^2 + width^2)) / 2`, convex; the last `concave` ramps are `-phi(-t)`. As an operator it is
    the gradient of `f(v) = sum_e integral_0^{v_e} t_e`, which is convex (Beckmann's objective). Made by
    `IncreasingNet.condition`.

    Args:
        base: `(E,)` or `(B, E)`.
        weight: >= 0, `(E, k)` or `(B, E, k)`.
        shift: `(E, k)` or `(B, E, k)`.
        rate: > 0, `(E,)` or `(B, E)`; one over the scale of `v`.
        width: of a ramp, > 0.
        concave: how many of the `k` ramps bend down.
    """

    base: Tensor = field(metadata=DATA)
    weight: Tensor = field(metadata=MATRIX)
    shift: Tensor = field(metadata=MATRIX)
    rate: Tensor = field(metadata=DATA)
    width: float = 1.0
    concave: int = 0

    @property
    def lipschitz(self) -> Float[Tensor, "*batch"]:
        """`max_e rate_e sum_k weight_ek`: no ramp is steeper than 1; per sample where the parameters are; detached."""
        bound = (self.rate * self.weight.sum(-1)).amax(-1)
        return bound.detach()

    def lipschitz_on(self, lower: Tensor | float, upper: Tensor | float) -> Float[Tensor, "*batch"]:
        """`max_e` of `slope_bound`: a Lipschitz constant on the box `lower <= v <= upper`; detached."""
        return self.slope_bound(lower, upper).amax(-1).detach()

    def slope_bound(self, lower: Tensor | float, upper: Tensor | float) -> Float[Tensor, "*batch E"]:
        """The largest slope of each function on `[lower_e, upper_e]` or a bound on it: of convex functions, the slope above.

        Args:
            lower: a number, `(E,)` or `(B, E)`.
            upper: the same forms, `>= lower`.

        Raises:
            ValueError: bounds that cross.
        """
        low, high = (torch.as_tensor(v, dtype=self.rate.dtype, device=self.rate.device) for v in (lower, upper))
        if not bool((low <= high).all()):
            raise ValueError("slope_bound needs lower <= upper in every entry.")
        convex = self._signs() > 0
        steepest = torch.where(convex, self._slopes(high), self._slopes(low))
        return self.rate * (self.weight * steepest).sum(-1)

    def slope(self, v: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """`dt_e / dv_e`, per sample."""
        return self.rate * (self.weight * self._slopes(v)).sum(-1)

    def apply(self, x: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """`t_e(x_e)`, per sample."""
        sign = self._signs()
        t = sign * self._arguments(x)
        return self.base + (self.weight * sign * (t + (t.square() + self.width**2).sqrt()) / 2).sum(-1)

    def value(self, x: Float[Tensor, "B E"]) -> Float[Tensor, " B"]:
        """`sum_e integral_0^{x_e} t_e(s) ds`, per sample."""
        return self.integral(x).sum(-1)

    def integral(self, v: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """`integral_0^{v_e} t_e(s) ds` for each entry, per sample."""
        sign = self._signs()
        areas = self._area(sign * self._arguments(v)) - self._area(sign * self.shift)
        return self.base * v + (self.weight * areas).sum(-1) / self.rate

    def _signs(self) -> Float[Tensor, " k"]:
        sign = torch.ones(self.weight.shape[-1], dtype=self.weight.dtype, device=self.weight.device)
        sign[sign.shape[0] - self.concave :] = -1.0
        return sign

    def _arguments(self, v: Tensor) -> Tensor:
        return (self.rate * v)[..., None] + self.shift

    def _slopes(self, v: Tensor) -> Tensor:
        """`phi'` of every ramp; even in the sign of a ramp, as `d(-phi(-t))/dt = phi'(-t)`."""
        t = self._signs() * self._arguments(v)
        return (1 + t * (t.square() + self.width**2).rsqrt()) / 2

    def _area(self, t: Tensor) -> Tensor:
        """An antiderivative of `phi`, for both kinds of ramps: `-phi(-t)` is the derivative of `Phi(-t)`."""
        root = (t.square() + self.width**2).sqrt()
        return (t.square() + t * root + self.width**2 * torch.asinh(t / self.width)) / 4


class IncreasingNet(nn.Module):
    """`t_e(v; d)`, increasing in `v_e` for all weights and arbitrary in `d`: the latencies of E links from a context.

    The context acts on the base, the weights and the rate, all through one linear map (put an encoder such as `MLP` before
    it): the rate is `exp` of its part, so that a capacity that falls with the weather is one number a link.

    Args:
        entries: `E`.
        context: length of the vector `d`; 0 for none.
        ramps: `k`, of each function.
        concave: how many of them bend down; with 0 the functions are convex.
        scale: typical values of `v_e`, positive, a number or `(E,)`.
        level: typical values of `t_e`, positive, a number or `(E,)`.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import IncreasingNet
        >>> _ = torch.manual_seed(0)
        >>> t = IncreasingNet(5, context=3).condition(torch.randn(2, 3))
        >>> v = torch.rand(2, 5)
        >>> bool((t.apply(v + 0.1) > t.apply(v)).all()), bool((t.slope(v) <= t.slope_bound(0.0, 1.0)).all())
        (True, True)
    """

    def __init__(
        self,
        entries: int,
        *,
        context: int = 0,
        ramps: int = 8,
        concave: int = 0,
        scale: Tensor | float = 1.0,
        level: Tensor | float = 1.0,
    ) -> None:
        super().__init__()
        if entries < 1 or ramps < 1:
            raise ValueError(f"IncreasingNet needs entries >= 1 and ramps >= 1; got {entries} and {ramps}.")
        if not 0 <= concave <= ramps:
            raise ValueError(f"IncreasingNet needs 0 <= concave <= ramps = {ramps}; got concave={concave}.")
        for name, value in (("scale", scale), ("level", level)):
            if not bool((torch.as_tensor(value) > 0).all()):
                raise ValueError(f"IncreasingNet needs {name} > 0; got {value}.")
        self.concave = concave
        self.sizes = (entries, entries * ramps, entries)  # base, weights, rate
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.get_default_dtype()).expand(entries).clone())
        self.register_buffer("level", torch.as_tensor(level, dtype=torch.get_default_dtype()).expand(entries).clone())
        # A flat function at first: the base is the level, the ramps begin between 0 and twice the scale.
        theta = torch.zeros(sum(self.sizes))
        theta[:entries] = math.log(math.expm1(1.0))
        theta[entries : entries * (1 + ramps)] = math.log(math.expm1(0.1 / ramps))
        self.theta = nn.Parameter(theta)
        self.shift = nn.Parameter(-torch.linspace(0.0, 2.0, ramps).expand(entries, ramps).clone())
        self.heads = nn.Linear(context, sum(self.sizes), bias=False) if context else None
        if self.heads is not None:
            nn.init.normal_(self.heads.weight, std=0.1 / context**0.5)

    def condition(self, context: Float[Tensor, "B c"] | None = None) -> IncreasingCost:
        """`t(.; context)` as an operator.

        Args:
            context: `(B, context)`, or None for a network built without.

        Raises:
            ValueError: a context is given to a network built without, or the reverse.
        """
        if (self.heads is None) != (context is None):
            raise ValueError(
                "the network was built without context=; condition() takes none."
                if self.heads is None
                else "the network was built with context=; condition(context) needs it."
            )
        theta = self.theta if self.heads is None else self.theta + self.heads(context)
        base, weight, rate = theta.split(self.sizes, dim=-1)
        level, scale = self.get_buffer("level"), self.get_buffer("scale")
        return IncreasingCost(
            base=level * F.softplus(base),
            weight=level[:, None] * F.softplus(weight).unflatten(-1, self.shift.shape),
            shift=self.shift,
            rate=rate.exp() / scale,
            width=0.5,
            concave=self.concave,
        )
