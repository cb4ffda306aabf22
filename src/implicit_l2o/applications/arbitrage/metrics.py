"""The metrics of trades: what they promise, what is executed, and what that is worth."""

from abc import abstractmethod
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from implicit_l2o.applications.arbitrage.analytic import optimal_trade
from implicit_l2o.applications.arbitrage.execution import Market

Quantity = Literal["executed_utility", "executed", "predicted_utility"]


class AbstractTradeMetric(Metric):
    """The mean of one number a trade, over all batches and processes.

    Args:
        market: the network.
    """

    is_differentiable = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, market: Market) -> None:
        super().__init__()
        self._market = market
        # In double precision, so that the sum does not depend on how the samples were batched.
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """The number of each trade at the true reserves, in float64."""

    @final
    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"]
    ) -> None:
        """Add a batch of trades with the true reserves."""
        self.total += self.values(trade.double(), reserves.double()).sum()
        self.count += len(trade)

    @final
    def compute(self) -> Float[Tensor, ""]:
        """The mean so far; NaN before the first trade."""
        return self.total / self.count


@final
class TradeMetric(AbstractTradeMetric):
    """What trades promise or earn; a refused trade is worth nothing.

    Args:
        quantity: `"predicted_utility"`, `<p, y - x>` as sent; `"executed_utility"`, that of the executed trades and 0 of the
            others; `"executed"`, the share that every pool accepts at the true reserves.
        market: the network.
    """

    higher_is_better = True

    def __init__(self, quantity: Quantity, market: Market) -> None:
        super().__init__(market)
        self.quantity = quantity

    def values(self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """See the class."""
        if self.quantity == "predicted_utility":
            return self._market.utility(trade)
        executed = self._market.executed(trade, reserves).double()
        return executed if self.quantity == "executed" else _earned(self._market, trade, reserves)


@final
class Shortfall(AbstractTradeMetric):
    """The utility of the best trade in hindsight less the executed one.

    Args:
        market: the network.
    """

    higher_is_better = False

    def values(self, trade: Float[Tensor, "B 2 L"], reserves: Float[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """See the class."""
        best = self._market.utility(optimal_trade(self._market, reserves))
        return best - _earned(self._market, trade, reserves)


def _earned(market: Market, trade: Tensor, reserves: Tensor) -> Tensor:
    return torch.where(market.executed(trade, reserves), market.utility(trade), 0.0)
