"""Learning the knapsack from solutions alone: the values that came true never enter, not even to choose the epoch."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.knapsack import figures
from implicit_l2o.applications.knapsack.certificates import CONSTRAINTS, VIOLATION, MassOffSelection, decide
from implicit_l2o.applications.knapsack.data import KnapsackData, items_of_run
from implicit_l2o.applications.knapsack.metrics import NormalizedRegret
from implicit_l2o.applications.knapsack.model import Selector, value_network
from implicit_l2o.data.knapsack import Items
from implicit_l2o.losses import fenchel_young, regret
from implicit_l2o.training import About, AbstractTask, Optimization, Samples, Splits

_ABOUT = About(
    title="Knapsacks from contexts",
    summary="From a context alone, without the values of the items, to the selection that will be worth the most. It is "
    "learned from contexts and the selections that were best; the values that came true are never seen.",
    problem=r"x_\theta(d) = \operatorname*{argmin}_{x} \; -\langle v_\theta(d), x \rangle + \frac{\gamma}{2} \| x \|^2 "
    r"\quad \text{subject to} \quad W x \le c, \; 0 \le x \le 1",
    guarantees=(
        "The relaxed selection x lies in [0, 1], exactly.",
        "How far it exceeds the limits, W x <= c, is measured for every answer.",
        "The decision is the exact best selection under the predicted values, so it always keeps the limits.",
    ),
)


class AbstractKnapsackTask(AbstractTask):
    """What all methods share: the items, the exact decision, the regret.

    Args:
        model: `d -> ...` as the subclass reads it.
        items: of the knapsack, with the seed of the run in theirs.
        optimization: AdamW and its schedule.
    """

    def __init__(self, model: nn.Module, items: Items, *, optimization: Optimization | None = None) -> None:
        super().__init__(model, optimization=optimization)
        self.items = items
        self.decoder = items.decoder()

    @abstractmethod
    def values(self, d: Float[Tensor, "B features"]) -> Float[Tensor, "B items"]:
        """The predicted values."""

    def metrics(self) -> Mapping[str, Metric]:
        """The regret of the decisions, over all samples and over those of the published data set."""
        return {"regret": NormalizedRegret(), "regret_published": NormalizedRegret(published=True)}

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the decisions by the values that came true."""
        _, selections, values, _, published = batch
        metrics.update(self.answer(inference), values, selections, published)

    def answer(self, inference: il2o.Inference) -> Float[Tensor, "B items"]:
        """The decision: the best selection under the predicted values."""
        return decide(self.decoder, inference)

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"] | None:
        """What the decision is worth below the best one, relative to it."""
        if len(batch) < 3:
            return None
        _, selections, values, *_ = batch
        return regret(self.answer(inference), -values, selections) / (values * selections).sum(1)

    def constant(self, training: TensorDataset) -> Float[Tensor, " items"]:
        """The selection that shares the most items with those that were best."""
        return self.decoder(-training.tensors[1].mean(0, keepdim=True)).squeeze(0)

    def on_fit_start(self) -> None:
        """Refuse to learn from the selections of other items.

        Raises:
            ValueError: the data have other items than the task.
        """
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, KnapsackData) and data.items != self.items:
            raise ValueError(f"the data are of {data.items}, but the task of {self.items}.")


@final
class KnapsackTask(AbstractKnapsackTask):
    """Selections learned from solutions: a network predicts values, and the layer answers with a relaxed selection.

    With `loss="fenchel_young"` the best selection is to be optimal for the layer's problem,
    `min f(x*; v) - min_x f(x; v)`, which is convex in the values and needs no backward mode. With `loss="solution"` the
    layer's answer is to be that selection, `min |x(v) - x*|^2`, through the backward mode.

    With a `perturbation` the values are `v + scale e`, `e ~ N(0, I)`, in training: the loss is the mean over a few draws
    and for the squared error the answers are averaged first. So a training pair is seen from all sides of the decision
    (Q. Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020, section 3).

    Args:
        items: of the knapsack, known to the model; None takes the defaults. Their seed plus the run's says which.
        features: length of a context.
        hidden: widths of the value network.
        dropout: see `value_network`.
        level: see `value_network`.
        gamma: of the quadratic term that makes the answer differentiable. The values are learned in units of it.
        loss: what a training minimises, on the validation data too.
        perturbation: standard deviation of the noise on the predicted values in training; 0 for none.
        copies: perturbed answers for each context.
        polish: solve exactly, by a compiled Newton method (needs numba); without, by Davis-Yin to the tolerances.
        tolerance: of an inference, on the residual.
        training_tolerance: of a solve in training.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.
        seed: of the run; None takes what `seed_everything` has set.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.knapsack import KnapsackTask
        >>> from implicit_l2o.data.knapsack import Items
        >>> task = KnapsackTask(items=Items(6))
        >>> chosen = task.answer(task.infer(torch.zeros(1, 5)))
        >>> bool((task.items.weights() @ chosen[0].double() <= 20).all())
        True
    """

    def __init__(
        self,
        *,
        items: Items | None = None,
        features: int = 5,
        hidden: Sequence[int] = (100,),
        dropout: float = 0.0,
        level: float = 0.0,
        gamma: float = 1.0,
        loss: Literal["solution", "fenchel_young"] = "fenchel_young",
        perturbation: float = 0.0,
        copies: int = 1,
        polish: bool = True,
        tolerance: float = 1e-3,
        training_tolerance: float = 1e-2,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
        seed: int | None = None,
    ) -> None:
        if loss not in ("solution", "fenchel_young"):
            raise ValueError(f'loss must be "solution" or "fenchel_young"; got {loss!r}.')
        for name, value in (("gamma", gamma), ("tolerance", tolerance), ("training_tolerance", training_tolerance)):
            if not value > 0:
                raise ValueError(f"KnapsackTask needs {name} > 0; got {name}={value}.")
        if not perturbation >= 0:
            raise ValueError(f"KnapsackTask needs perturbation >= 0; got perturbation={perturbation}.")
        if copies < 1:
            raise ValueError(f"KnapsackTask needs copies >= 1; got copies={copies}.")
        items = items_of_run(items, seed)
        lp = items.program()
        layer = il2o.LPLayer(lp, gamma=gamma, tolerance=tolerance, max_steps=20_000, polish=polish)
        network = value_network(features, items.count, hidden=hidden, dropout=dropout, level=level)
        super().__init__(Selector(network, layer), items, optimization=optimization)
        self._loss = loss
        self._perturbation = perturbation
        self._copies = copies
        # A solve that runs out of steps is near enough for a training, so there is nothing to warn of.
        self._solve = il2o.LPLayer(
            lp,
            gamma=gamma,
            tolerance=training_tolerance,
            max_steps=1000,
            polish=polish,
            backward=backward,
            on_failure="ignore",
        )

    @property
    def selector(self) -> Selector:
        """`d -> x(d)`."""
        assert isinstance(self.model, Selector)
        return self.model

    def values(self, d: Tensor) -> Tensor:
        """The predicted values, in units of gamma."""
        return self.selector.network(d)

    def infer(self, d: Tensor) -> il2o.Inference:
        """The relaxed selections."""
        return self.selector(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The answers under perturbed values, one copy of the batch after another.

        The Fenchel-Young loss needs no gradient of them.
        """
        cost = -self.values(d).repeat(self._copies, 1)
        if self._perturbation:
            cost = cost + self._perturbation * torch.randn_like(cost)
        if self._loss == "solution":
            return self._solve.inference(cost)
        with torch.no_grad():
            solved = self._solve.inference(cost)
        f = il2o.QuadraticCost(linear=cost, diagonal=self._solve.gamma)
        return dataclasses.replace(solved, problem=il2o.Problem(F=f, g=il2o.Box(0.0, 1.0)))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch, summed over the items; it takes the contexts and the selections, and no values."""
        selections = batch[1]
        copies = len(inference.x) // len(selections)
        if self._loss == "solution":
            mean = inference.x.unflatten(0, (copies, -1)).mean(0)
            return (mean - selections).square().sum(1).mean()
        cost = inference.need_problem("fenchel_young").F
        assert isinstance(cost, il2o.QuadraticCost)
        return fenchel_young(cost, inference.x, selections.repeat(copies, 1)).mean()

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the relaxed selection keeps the limits."""
        return CONSTRAINTS

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """How much of the layer's answer is not in the decided selection."""
        return (MassOffSelection(self.decoder),)

    def about(self) -> About:
        """See the base."""
        return _ABOUT

    @torch.no_grad()
    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The items by weight, with the layer's answer and the selections."""
        inference = self.infer(sample["inputs"].unsqueeze(0).to(self.device))
        figures.example(figure, self.items, sample, relaxed=inference.x[0].cpu(), predicted=-inference.data[0].cpu())

    @torch.no_grad()
    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Selections in the plane of weights, what doubt costs, and the predicted values against the mean ones."""
        contexts, _, _, mean_values, _ = samples.batch
        inference = self.infer(contexts.to(self.device))
        predicted = self.values(contexts.to(self.device)).cpu()
        return {
            "Selections": figures.selections(self.items, samples, inference.x.cpu()),
            "Doubt": figures.doubt(samples, self.decoder(-mean_values)),
            "Values": figures.values(self.items, predicted, mean_values),
        }

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """More on the regret, and the largest violations of the limits.

        `regret_floor` is that of the best possible predictor (see `Floor`), and `excess` what the model has above it.
        `max_overweight` is of the decisions, `max_constraint_violation` of the layer's converged answers, in weight.
        """
        _, selections, values, mean_values, published = samples.batch
        best = self.decoder(-mean_values)
        found: dict[str, Any] = {}
        for name, where in (("", torch.ones_like(published)), ("_published", published)):
            if bool(where.any()):
                optimal = (values * selections)[where].sum()
                floor = float(1 - (values * best)[where].sum() / optimal)
                found[f"regret_floor{name}"] = floor
                found[f"excess{name}"] = float(1 - (values * samples.answer)[where].sum() / optimal) - floor
        violation = samples.values[:, samples.names.index(VIOLATION)]
        converged = torch.ones_like(samples.worst, dtype=torch.bool)
        if samples.status is not None:
            converged = samples.status == il2o.Status.CONVERGED
        weight = samples.answer.double() @ self.items.weights().T - self.items.capacities()
        return found | {
            "max_overweight": float(weight.max().clamp_min(0.0)),
            "max_constraint_violation": float(violation[converged].max()) if bool(converged.any()) else None,
        }
