"""What becomes of a trade at the true reserves: a pool accepts it where its mean does not fall and it can pay out."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o.applications.arbitrage.sets import Structure
from implicit_l2o.data.pools import PoolNetwork

_LEAST = 1e-9  # of the reserves, under the logarithm of a pool that is paid out


@final
@dataclass(frozen=True, eq=False)
class Market:
    """A network in tensors: the sets' structure and the prices.

    Args:
        structure: of the sets.
        prices: `(L,)` of the token of each place.
    """

    structure: Structure
    prices: Float[Tensor, " L"]

    @classmethod
    def of(cls, network: PoolNetwork) -> "Market":
        """The tensors of a network, in float64."""
        structure = Structure(network.membership(), network.geometric(), network.weights(), network.fees())
        return cls(structure, network.price_vector())

    def utility(self, trade: Float[Tensor, "B 2 L"]) -> Float[Tensor, " B"]:
        """`<p, y - x>`: what is received less what is tendered, at the trader's prices."""
        return (self.prices * (trade[:, 1] - trade[:, 0])).sum(1)

    def rises(self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"]) -> Float[Tensor, "B J"]:
        """By how much the mean of each pool rises, relative to it (logarithmic for a geometric one)."""
        s = self.structure
        after = reserves + s.fees * trade[:, 0] - trade[:, 1]
        geometric = s.by_pool(s.weights * (after / reserves).clamp_min(_LEAST).log())
        arithmetic = s.by_pool(s.weights * (after - reserves)) / s.by_pool(s.weights * reserves)
        return torch.where(s.geometric, geometric, arithmetic)

    def left(self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """What is left of each reserve when the trade is paid out, relative to it."""
        return (reserves + self.structure.fees * trade[:, 0] - trade[:, 1]) / reserves

    def executed(self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Trades that every pool accepts: no mean falls, and no pool pays out more than it holds.

        The published rule asks for the means alone; what a pool does not hold it cannot pay.
        """
        accepted = (self.rises(trade, reserves) >= 0).all(1)
        return accepted & (self.left(trade, reserves) >= 0).all(1) & torch.isfinite(trade).flatten(1).all(1)

    def acceptance(
        self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"], temperature: float
    ) -> Float[Tensor, " B"]:
        """`executed` made smooth: the product of `sigmoid(margin / temperature)` over what a pool asks for."""
        rises = torch.nn.functional.logsigmoid(self.rises(trade, reserves) / temperature).sum(1)
        # A geometric pool never pays out all: its mean would be zero.
        paid = torch.nn.functional.logsigmoid(self.left(trade, reserves) / temperature)
        return (rises + torch.where(self.structure.at_geometric, 0.0, paid).sum(1)).exp()

    def refusal(
        self, trade: Float[Tensor, "B 2 L"], seen: Float[Tensor, "B L"], volatility: float | Float[Tensor, "B 1"]
    ) -> Float[Tensor, " B"]:
        """A bound on the chance that a pool refuses: the sum of the chances that each of its demands is not met.

        Every reserve is seen with an independent relative error of standard deviation `volatility`. To first order a
        margin `m` then changes by `volatility s`, so its chance is `Phi(-m / (volatility s))`: for the mean of a geometric
        pool `s = |w v / (d + v)|`, for the payout of an arithmetic one `s = y / d`. The mean of an arithmetic pool does not
        change.
        """
        s = self.structure
        after = seen + s.fees * trade[:, 0] - trade[:, 1]
        change = s.weights * (after - seen) / torch.maximum(after, _LEAST * seen)
        rises = self.rises(trade, seen)
        geometric = _chance(rises, volatility * s.by_pool(change.square()).sqrt()).where(s.geometric, 0.0)
        arithmetic = _chance(rises, torch.zeros_like(rises)).where(~s.geometric, 0.0)
        payout = _chance(after / seen, volatility * trade[:, 1] / seen).where(~s.at_geometric, 0.0)
        return torch.cat([geometric, arithmetic, payout], dim=1).sum(1)


def _chance(margin: Tensor, deviation: Tensor) -> Tensor:
    """`P(N(margin, deviation^2) < 0)`; without a deviation, whether the margin is negative."""
    known = deviation > 0
    chance = torch.special.ndtr(-margin / torch.where(known, deviation, 1.0))
    return torch.where(known, chance, (margin < 0).to(margin.dtype))
