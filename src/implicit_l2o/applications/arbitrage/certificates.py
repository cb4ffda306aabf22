"""What is certified of a trade, from what is seen alone: profit, acceptance as seen, risk, and the chance of a refusal."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage.execution import Market
from implicit_l2o.applications.arbitrage.model import ArbitrageLayer
from implicit_l2o.data.arbitrage import MOST_NOISE

SEEN = "fall of a mean as seen"
PROFIT = "loss of utility"
RISK = "learned risk"
REFUSAL = "chance of a refusal"
MOST_FALL = 1e-9  # relative; the slack is far above the tolerance of the solve


def seen(inference: il2o.Inference, places: int) -> tuple[Tensor, Tensor | None]:
    """The observed reserves and, where the inputs have it, the volatility."""
    data = inference.data.double()
    return data[:, :places], data[:, places:] if data.shape[1] > places else None


@dataclass(frozen=True, eq=False)
class FallAsSeen(il2o.AbstractMeasure):
    """The largest relative fall of a pool's mean at the observed reserves; 0 where every pool would accept.

    Args:
        market: the network.
        name: shown in the report.
    """

    market: Market
    name: str = field(default=SEEN, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The largest fall, per sample."""
        reserves, _ = seen(inference, len(self.market.prices))
        return (-self.market.rises(inference.x.double(), reserves)).amax(1).clamp_min(0)


@dataclass(frozen=True, eq=False)
class LossOfUtility(il2o.AbstractMeasure):
    """`<p, x - y>`: negative for a profitable trade.

    Args:
        market: the network.
        name: shown in the report.
    """

    market: Market
    name: str = field(default=PROFIT, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """Minus the utility, per sample."""
        return -self.market.utility(inference.x.double())


@dataclass(frozen=True, eq=False)
class LearnedRisk(il2o.AbstractMeasure):
    """`|W (x - y)|^2 / 2`, the term that the model weighs against the utility.

    Args:
        W: `(L, L)`.
        name: shown in the report.
    """

    W: Float[Tensor, "L L"]
    name: str = field(default=RISK, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The risk, per sample."""
        paid = (inference.x[:, 0] - inference.x[:, 1]).double()
        return 0.5 * (paid @ self.W.mT).square().sum(1)


@dataclass(frozen=True, eq=False)
class ChanceOfRefusal(il2o.AbstractMeasure):
    """A bound on the chance that a pool refuses, under a stated error of the observation (see `Market.refusal`).

    Args:
        market: the network.
        volatility: of the observation; None for the largest of the recipe, or that in the inputs where `observed`.
        observed: take it from the inputs, whose last column it is.
        name: shown in the report.
    """

    market: Market
    volatility: float = MOST_NOISE
    observed: bool = False
    name: str = field(default=REFUSAL, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The bound, per sample."""
        reserves, column = seen(inference, len(self.market.prices))
        if self.observed and column is None:
            raise ValueError(f"'{self.name}' needs the volatility as the last column of the inputs.")
        volatility = column if self.observed and column is not None else self.volatility
        return self.market.refusal(inference.x.double(), reserves, volatility)


def fixed(market: Market) -> tuple[il2o.Certificate, ...]:
    """The certificates whose limits are not calibrated: accepted as seen, and profitable."""
    return (
        il2o.Certificate(FallAsSeen(market), il2o.Threshold(MOST_FALL)),
        il2o.Certificate(LossOfUtility(market), il2o.Threshold(0.0)),
    )


def learned_measures(layer: ArbitrageLayer) -> tuple[il2o.AbstractMeasure, ...]:
    """The learned risk, and the chance of a refusal: to be calibrated."""
    refusal = ChanceOfRefusal(layer.market, observed=layer.power is not None)
    return LearnedRisk(layer.W().detach()), refusal
