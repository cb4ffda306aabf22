"""Predicting equilibria of games from contexts: payoffs are learned from equilibria alone and are never seen."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.matrix_games import figures
from implicit_l2o.applications.matrix_games.certificates import PredictedGap, of_strategies, of_the_solve
from implicit_l2o.applications.matrix_games.metrics import EquilibriumError, TrueGap
from implicit_l2o.applications.matrix_games.model import FixedPointModel, PayoffModel, SoftmaxNetwork, payoff_network
from implicit_l2o.games import MatrixGame
from implicit_l2o.training import About, AbstractTask, Optimization, Samples, Splits

_ABOUT = About(
    title="Equilibria of matrix games",
    summary="From a context to the quantal response equilibrium of a game with n actions. It is learned from contexts and "
    "equilibria; the payoffs are never seen.",
    problem=r"u = \operatorname*{argmin}_{u \in \Delta} \langle u, B_\theta(d) v \rangle + \sum_i u_i \log u_i, \quad "
    r"v = \operatorname*{argmax}_{v \in \Delta} \langle u, B_\theta(d) v \rangle - \sum_j v_j \log v_j",
    guarantees=(
        "Both strategies are probabilities, to rounding.",
        "The residual of Tseng's map and the gap of the predicted game are measured for every answer; the gap bounds the "
        "distance to that game's equilibrium.",
    ),
)


class AbstractGameTask(AbstractTask):
    """What all methods share: the losses, the metrics, the strategies.

    Args:
        model: `d -> ` an inference.
        actions: of each player.
        temperature: of the true game's entropy, for the metric.
        loss: `"squared"`, the mean squared error, or `"likelihood"`, the divergence `sum x* log (x* / x)` of both players.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an unknown loss.
    """

    monitor = "val/mse"

    def __init__(
        self,
        model: nn.Module,
        *,
        actions: int,
        temperature: float = 1.0,
        loss: str = "squared",
        optimization: Optimization | None = None,
    ) -> None:
        permitted = self.losses()
        if loss not in permitted:
            raise ValueError(f"{type(self).__name__}.loss must be one of {', '.join(permitted)}; got {loss!r}.")
        super().__init__(model, optimization=optimization)
        self.actions, self.temperature = actions, temperature
        self._loss = loss

    @classmethod
    def losses(cls) -> tuple[str, ...]:
        """The losses it knows."""
        return ("squared", "likelihood")

    def infer(self, d: Tensor) -> il2o.Inference:
        """The predicted equilibria."""
        return self.model(d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch; it takes contexts and equilibria, and no payoffs."""
        if self._loss == "squared":
            return (inference.x - batch[1]).square().mean()
        return divergence(inference.x.clamp_min(torch.finfo(inference.x.dtype).tiny).log(), batch[1]).mean()

    def metrics(self) -> Mapping[str, Metric]:
        """Of the answers: against the exact equilibria, and in the true game."""
        return {"mse": EquilibriumError(), "gap": TrueGap(self.actions, self.temperature)}

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Judge the answers."""
        metrics.update(self.answer(inference), batch[1], batch[2])

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the answer is a pair of strategies."""
        return (of_strategies(self.actions),)

    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """Both strategies, predicted and exact."""
        figures.example(figure, sample)


@final
class PayoffTask(AbstractGameTask):
    """A network predicts payoffs, and the answer is the equilibrium of the predicted game.

    With `loss="response"` the exact strategies are to answer each other in the predicted game,
    `min sum u* log (u* / softmax(-B v* / t))`, and the same for the other player. That is convex in the payoffs, needs no
    solve in training and no backward mode: a game is seen through its equilibrium conditions (the likelihood of quantal
    responses, McKelvey and Palfrey 1995). Without entropy it is the square of what the players could gain in the predicted
    game, relative to the size of its payoffs. The other losses compare the solved equilibrium, through the backward mode.

    Args:
        actions: of each player.
        hidden: of the payoff network; 0 for a linear one.
        temperature: of the players' entropy; 0 for games without.
        loss: `"response"`, `"likelihood"` or `"squared"`.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an unknown loss.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.matrix_games import PayoffTask
        >>> x = PayoffTask(actions=3).infer(torch.zeros(1, 3).double()).x
        >>> x.round(decimals=4)[0, :3]
        tensor([0.3333, 0.3333, 0.3333], dtype=torch.float64, grad_fn=<SliceBackward0>)
    """

    def __init__(
        self,
        *,
        actions: int = 5,
        hidden: int = 0,
        temperature: float = 1.0,
        loss: Literal["response", "likelihood", "squared"] = "response",
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        model = PayoffModel(payoff_network(actions, hidden), actions, temperature=temperature, backward=backward)
        super().__init__(model, actions=actions, temperature=temperature, loss=loss, optimization=optimization)

    @classmethod
    def losses(cls) -> tuple[str, ...]:
        """The losses it knows."""
        return ("response", "likelihood", "squared")

    @property
    def game(self) -> PayoffModel:
        """`d -> x(d)`."""
        assert isinstance(self.model, PayoffModel)
        return self.model

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The equilibria; for the response loss the payoffs, for which nothing is solved."""
        if self._loss != "response":
            return self.infer(d)
        return il2o.Inference(x=self.game.payoff(d), data=d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """See the class."""
        if self._loss != "response":
            return super().loss(inference, batch)
        if self.temperature == 0:
            size = inference.x.flatten(1).norm(dim=1).clamp_min(torch.finfo(inference.x.dtype).tiny)
            return (MatrixGame(inference.x).exploitability(batch[1]) / size).square().mean()
        answers = response_logits(inference.x / self.temperature, batch[1])
        return divergence(answers.flatten(1), batch[1]).mean()

    def validation_inference(self, d: Tensor) -> il2o.Inference:
        """The equilibria, with their solve in `self.solve`: with the response loss it is the only one of an epoch."""
        return self._observed(self.infer(d))

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the answer is a pair of strategies, and the solve at rest."""
        return (of_strategies(self.actions), of_the_solve())

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """How far the answer is from equilibrium in the predicted game."""
        return (PredictedGap(self.temperature),)

    def about(self) -> About:
        """See the base."""
        return _ABOUT

    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Predicted strategies over the exact ones."""
        return {"Strategies": figures.strategies(samples)}

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """The largest error of an entry, and how many solves met their tolerance."""
        assert samples.status is not None
        return {
            "largest_error": float((samples.answer - samples.batch[1]).abs().max()),
            "converged": float((samples.status == il2o.Status.CONVERGED).double().mean()),
        }


@final
class FixedPointTask(AbstractGameTask):
    """A network is the pseudo-gradient itself, in the published form or a cocoercive one; trained by JFB.

    Args:
        actions: of each player.
        form: see `FixedPointModel`.
        hidden: of the cocoercive form.
        contraction: of the cocoercive form.
        temperature: of the true game, for the metric.
        loss: `"squared"` or `"likelihood"`.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self,
        *,
        actions: int = 5,
        form: Literal["published", "cocoercive"] = "cocoercive",
        hidden: int = 64,
        contraction: float = 0.7,
        temperature: float = 1.0,
        loss: Literal["squared", "likelihood"] = "squared",
        optimization: Optimization | None = None,
    ) -> None:
        model = FixedPointModel(actions, form=form, hidden=hidden, contraction=contraction)
        super().__init__(model, actions=actions, temperature=temperature, loss=loss, optimization=optimization)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the answer is a pair of strategies, and the solve at rest."""
        return (of_strategies(self.actions), of_the_solve())


@final
class BlackBoxTask(AbstractGameTask):
    """A network with one softmax a player.

    Args:
        actions: of each player.
        hidden: width of its two hidden layers.
        temperature: of the true game, for the metric.
        loss: `"squared"` or `"likelihood"`.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self,
        *,
        actions: int = 5,
        hidden: int = 64,
        temperature: float = 1.0,
        loss: Literal["squared", "likelihood"] = "likelihood",
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(
            SoftmaxNetwork(actions, hidden),
            actions=actions,
            temperature=temperature,
            loss=loss,
            optimization=optimization,
        )


def response_logits(payoff: Float[Tensor, "B n n"], x: Float[Tensor, "B both"]) -> Float[Tensor, "B 2 n"]:
    """The log-probabilities of both players' logit responses to the other's strategy in `x`."""
    u, v = x.chunk(2, 1)
    costs = (payoff @ v[..., None])[..., 0]
    gains = (u[:, None] @ payoff)[:, 0]
    return torch.stack([-costs, gains], 1).log_softmax(-1)


def divergence(logits: Float[Tensor, "B both"], x: Float[Tensor, "B both"]) -> Float[Tensor, " B"]:
    """`sum x log x - x log p`, the Kullback-Leibler divergences of both players from log-probabilities `log p`."""
    return -(torch.special.entr(x) + x * logits).sum(1)
