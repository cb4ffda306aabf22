"""What the trades are compared with: the analytic optimum, with a slack or without, hindsight, and a dense network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage.analytic import optimal_trade
from implicit_l2o.applications.arbitrage.data import network_of
from implicit_l2o.applications.arbitrage.execution import Market
from implicit_l2o.applications.arbitrage.task import AbstractTradeTask
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Optimization

_SLACKS = tuple(10 ** (-4 + 0.1 * step) for step in range(21))  # from 0.01 % to 1 %


@final
@dataclass(eq=False)
class Analytic(AbstractBaseline):
    """The optimal trade for the reserves as seen; it leaves no margin, unless one slack for all pools is chosen.

    Args:
        choose_slack: take the slack, the same for every pool, that earns the most on validation data.
    """

    choose_slack: bool = False
    _slack: float = field(default=0.0, init=False, repr=False)

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Choose the slack, where asked to."""
        self._market = _market_of(task)
        if not self.choose_slack:
            return
        inputs, reserves = data.splits.validation.tensors
        seen, true = inputs[:, : len(self._market.prices)].double(), reserves.double()

        def earned(slack: float) -> float:
            trade = optimal_trade(self._market, seen, slack)
            return float((self._market.utility(trade) * self._market.executed(trade, true)).mean())

        self._slack = max(_SLACKS, key=earned)

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The trades."""
        seen = batch[0][:, : len(self._market.prices)].double()
        return il2o.Inference(x=optimal_trade(self._market, seen, self._slack), data=batch[0])

    def numbers(self) -> Mapping[str, Any]:
        """How many numbers were fitted, and the slack."""
        return {"parameters": int(self.choose_slack), "slack": self._slack}


@final
class Hindsight(AbstractBaseline):
    """The best trade for the true reserves, less a part in 10^9 so that rounding refuses none: a bound, not a method."""

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Nothing is fitted."""
        self._market = _market_of(task)

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The trades; they read the target."""
        return il2o.Inference(x=optimal_trade(self._market, batch[1].double(), 1e-9), data=batch[0])


@final
class DenseTask(AbstractTradeTask):
    """The black box: a dense network from reserves to trades, punished in training where a pool would refuse.

    Its answers are not negative and take no more than a pool is seen to hold; nothing else about them is guaranteed.

    Args:
        network: a YAML file; None for the published network.
        hidden: width of its two hidden layers.
        margin: relative, by which every mean should rise.
        penalty: utility a relative shortfall of the margin costs, for each pool.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self,
        *,
        network: str | None = None,
        hidden: int = 64,
        margin: float = 5e-3,
        penalty: float = 300.0,
        optimization: Optimization | None = None,
    ) -> None:
        market = Market.of(network_of(network))
        places = len(market.prices)
        layers = nn.Sequential(
            nn.Linear(places, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * places)
        )
        super().__init__(layers.double(), market, temperature=1e-4, optimization=optimization)
        self._margin = margin
        self._penalty = penalty
        self.register_buffer("centre", torch.zeros(places, dtype=torch.float64))

    def on_fit_start(self) -> None:
        """The mean logarithm of the training reserves, which the network is fed relative to."""
        inputs = self.trainer.datamodule.splits.train.tensors[0]  # type: ignore[attr-defined]
        self.centre = inputs[:, : len(self.market.prices)].double().log().mean(0)

    def infer(self, d: Tensor) -> il2o.Inference:
        """The trades."""
        seen = d[:, : len(self.market.prices)].double()
        out = self.model(10.0 * (seen.log() - self.centre)).unflatten(1, (2, -1)) - 3.0
        trade = torch.stack([nn.functional.softplus(out[:, 0]), torch.sigmoid(out[:, 1])], dim=1)
        return il2o.Inference(x=trade * seen[:, None], data=d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Minus the utility, plus what the shortfalls of the margin cost."""
        short = (self._margin - self.market.rises(inference.x, batch[1].double())).clamp_min(0)
        return (self._penalty * short.sum(1) - self.market.utility(inference.x)).mean()


def _market_of(task: AbstractTask) -> Market:
    if not isinstance(task, AbstractTradeTask):
        raise TypeError(f"this is a baseline of an arbitrage task; got {type(task).__name__}.")
    return task.market
