"""The arbitrage model as it is served."""

import dataclasses
from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage.certificates import fixed, learned_measures
from implicit_l2o.applications.arbitrage.execution import Market
from implicit_l2o.applications.arbitrage.model import ArbitrageLayer
from implicit_l2o.data.arbitrage import published_network
from implicit_l2o.serving import AbstractServable


@final
class ServedTrades(AbstractServable):
    """Observed reserves and their volatility, `(B, L + 1)`, to trades `(B, 2, L)` on the published network of pools.

    Args:
        network: None; a network of its own is a file, which no saved layer refers to.
        slack: at the start; the learned one is in the weights.
        risk: the unit of the learned risk.
        volatility: whether the slack depends on the volatility.
        tolerance: of a solve.

    Raises:
        ValueError: another network than the published one, or an option is out of its range.

    Example:
        >>> from implicit_l2o.applications.arbitrage.served import ServedTrades
        >>> [certificate.name for certificate in ServedTrades().certificates()]
        ['fall of a mean as seen', 'loss of utility']
    """

    def __init__(
        self,
        *,
        network: None = None,
        slack: float = 2e-3,
        risk: float = 0.02,
        volatility: bool = False,
        tolerance: float = 1e-6,
    ) -> None:
        if network is not None:
            raise ValueError(f"ServedTrades knows the published network alone (network=None); got {network!r}.")
        super().__init__()
        pools = published_network()
        self.model = ArbitrageLayer(pools, slack=slack, risk=risk, volatility=volatility, tolerance=tolerance)
        self.market = Market.of(pools)

    def infer(self, d: Float[Tensor, "B inputs"]) -> il2o.Inference:
        """The trades; the measures see the inputs with the volatility."""
        return inference_of(self.model, d)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Accepted as seen, and profitable."""
        return fixed(self.market)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """The learned risk, and the chance of a refusal."""
        return learned_measures(self.model)

    def check(self, d: Tensor) -> None:
        """Reserves are positive."""
        places = len(self.market.prices)
        self.model.network.check_reserves(d[:, :places])
        if bool((d[:, places:] < 0).any()):
            raise ValueError(f"a volatility must not be negative; the smallest is {float(d[:, places:].min())}.")


def inference_of(layer: ArbitrageLayer, d: Float[Tensor, "B inputs"]) -> il2o.Inference:
    """The trades for reserves with their volatility in the last column; the measures see both."""
    places = len(layer.prices)
    volatility = d[:, places:] if layer.power is not None else None
    return dataclasses.replace(layer.inference(d[:, :places], volatility), data=d)
