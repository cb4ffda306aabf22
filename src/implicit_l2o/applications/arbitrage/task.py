"""Learning to trade on noisy reserves: what the pools really held enters in training alone."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage import figures
from implicit_l2o.applications.arbitrage.abstention import abstention, promises
from implicit_l2o.applications.arbitrage.analytic import optimal_trade
from implicit_l2o.applications.arbitrage.certificates import fixed, learned_measures
from implicit_l2o.applications.arbitrage.data import network_of
from implicit_l2o.applications.arbitrage.execution import Market
from implicit_l2o.applications.arbitrage.metrics import Shortfall, TradeMetric
from implicit_l2o.applications.arbitrage.model import ArbitrageLayer
from implicit_l2o.applications.arbitrage.served import ServedTrades, inference_of
from implicit_l2o.training import About, AbstractTask, Optimization, Samples, Splits

_ABOUT = About(
    title="Arbitrage between market makers",
    summary="From reserves that are seen with noise to trades that the pools accept. The optimal trade for what is seen "
    "leaves no margin, and is refused; a learned slack and a learned risk make the problem's optimum one that is executed.",
    problem=r"(x, y)(d) = \operatorname*{argmax}_{x, y} \; \langle p, y - x \rangle - \frac{1}{2} \| W (x - y) \|^2 "
    r"\quad \text{s.t.} \quad \varphi_j(d + \gamma_j x - y) \ge (1 + \delta_j) \varphi_j(d), "
    r"\; x \ge 0, \; 0 \le y \le (1 - \delta) d",
    guarantees=(
        "What is tendered and received is not negative, exactly.",
        "Every pool would accept the trade at the reserves that are seen, with the learned slack to spare.",
        "No pool is asked for more than it is seen to hold, less the slack.",
    ),
)


class AbstractTradeTask(AbstractTask):
    """What all methods share: the market, the metrics, the fixed certificates, the smooth executed utility as the loss.

    Args:
        model: `d -> trade` as the subclass reads it.
        market: of the network, in tensors.
        temperature: of the smooth acceptance, relative to the reserves.
        optimization: AdamW and its schedule.
    """

    monitor = "val/shortfall"  # of the trades as they are judged, not of their smooth counterparts

    def __init__(
        self, model: nn.Module, market: Market, *, temperature: float, optimization: Optimization | None = None
    ) -> None:
        super().__init__(model, optimization=optimization)
        if not temperature > 0:
            raise ValueError(f"the temperature must be positive; got temperature={temperature}.")
        self.market = market
        self._temperature = temperature

    @abstractmethod
    def infer(self, d: Tensor) -> il2o.Inference:
        """The trades `(B, 2, L)` for inputs `(B, L + 1)`."""

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """Minus the executed utility, the acceptance made smooth."""
        accepted = self.market.acceptance(inference.x, batch[1].double(), self._temperature)
        return -(self.market.utility(inference.x) * accepted).mean()

    def metrics(self) -> Mapping[str, Metric]:
        """What trades promise, what is executed, what that is worth."""
        return {
            "executed_utility": TradeMetric("executed_utility", self.market),
            "executed": TradeMetric("executed", self.market),
            "predicted_utility": TradeMetric("predicted_utility", self.market),
            "shortfall": Shortfall(self.market),
        }

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor | None:
        """The utility that was missed: of the best trade in hindsight, less the executed one."""
        if len(batch) < 2:
            return None
        return Shortfall(self.market).values(inference.x.double(), batch[1].double())

    def constant(self, training: TensorDataset) -> Tensor:
        """The mean of the trades that would have been the best: what one does who never looks."""
        return optimal_trade(self.market, training.tensors[1].double()).mean(0)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Accepted as seen, and profitable."""
        return fixed(self.market)

    def about(self) -> About:
        """See the base."""
        return _ABOUT


@final
class ArbitrageTask(AbstractTradeTask):
    """Trades by the optimum of a learned problem: 30 numbers for the published network.

    Args:
        network: a YAML file (see `read_network`); None for the published network.
        slack: of every pool at the start.
        risk: the diagonal of `W` at the start.
        volatility: condition the slack on the observed volatility: one more number a pool.
        temperature: of the smooth acceptance in the loss.
        tolerance: of a solve, on the residual, in units of the reserves; well below the slack.
        at_most: the share of refused trades that is promised when the model abstains (see `abstention`).
        confidence: of that promise.
        backward: None takes `Implicit()`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.arbitrage import ArbitrageData, ArbitrageTask
        >>> inputs, reserves = ArbitrageData(train=2, validation=2, test=2).splits.test.tensors
        >>> inference = ArbitrageTask().infer(inputs)
        >>> inference.x.shape, bool(inference.valid.all())
        (torch.Size([2, 2, 11]), True)
    """

    served_by = ServedTrades

    def __init__(
        self,
        *,
        network: str | None = None,
        slack: float = 2e-3,
        risk: float = 0.02,
        volatility: bool = False,
        temperature: float = 5e-5,
        tolerance: float = 1e-6,
        at_most: float = 0.01,
        confidence: float = 0.9,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        pools = network_of(network)
        layer = ArbitrageLayer(
            pools, slack=slack, risk=risk, volatility=volatility, tolerance=tolerance, backward=backward
        )
        super().__init__(layer, Market.of(pools), temperature=temperature, optimization=optimization)
        self._promise = (at_most, confidence)

    @property
    def layer(self) -> ArbitrageLayer:
        """The layer with what is learned."""
        assert isinstance(self.model, ArbitrageLayer)
        return self.model

    def infer(self, d: Tensor) -> il2o.Inference:
        """The trades; the measures see the inputs with the volatility."""
        return inference_of(self.layer, d)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """The learned risk, and the chance of a refusal."""
        return learned_measures(self.layer)

    @torch.no_grad()
    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """What is learned, what abstaining gives, and the certificates of the analytic optimum."""
        inputs, reserves = splits.validation.tensors
        usual = self.infer(inputs)
        observed = self.layer.power is not None
        return {
            "slack": self.layer.log_slack.exp().tolist(),
            "power": [] if self.layer.power is None else self.layer.power.tolist(),
            "risk_norm": float(torch.linalg.matrix_norm(self.layer.W(), ord=2)),
            "abstention": abstention(self, samples, usual, reserves, *self._promise, observed=observed),
            "abstention_volatility": abstention(self, samples, usual, reserves, *self._promise, observed=True),
            **promises(self, samples, usual),
        }

    @torch.no_grad()
    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The trade, place by place, beside the best one in hindsight."""
        figures.example(figure, self.layer.network, self.market, sample)

    @torch.no_grad()
    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Risk against profit, and where the utility comes from."""
        return {
            "Risk and profit": figures.risk_and_profit(self, samples),
            "Pools": figures.pools(self.layer.network, self.market, samples),
        }
