"""Training on maps from paths alone: the costs of the cells never enter, not even to choose the epoch."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.warcraft import figures
from implicit_l2o.applications.warcraft.certificates import CONSTRAINTS, VIOLATION, FlowOffPath
from implicit_l2o.applications.warcraft.metrics import (
    SAME,
    CostRatio,
    ExactRate,
    Hamming,
    IdenticalRate,
    NormalizedRegret,
)
from implicit_l2o.applications.warcraft.model import AbstractNetworkSpec, PatchNetwork, PathFinder, decide, perturb
from implicit_l2o.data.warcraft import CellGrid, path_costs
from implicit_l2o.losses import fenchel_young
from implicit_l2o.training import About, AbstractTask, Optimization, Samples, Splits

_ABOUT = About(
    title="Warcraft maps",
    summary="From the image of a terrain to the cheapest path from corner to corner. It is learned from images and paths; "
    "what the terrains cost is never seen.",
    problem=r"x_\theta(d) = \operatorname*{argmin}_{x} \; \langle w_\theta(d), x \rangle + \frac{\gamma}{2} \| x \|^2 "
    r"\quad \text{subject to} \quad A x = b, \; x \ge 0",
    guarantees=(
        "The flow x is nonnegative, exactly.",
        "Its distance to flow conservation, A x = b, is at most the residual of the solve (Davis-Yin), which is "
        "measured for every answer.",
        "The decision is an exact cheapest path under the predicted costs, so it always leads from corner to corner.",
    ),
)


class AbstractMapTask(AbstractTask):
    """What all methods share: the grid, the decision, the metrics.

    Args:
        model: `d -> ...` as the subclass reads it.
        grid: of the cells.
        optimization: AdamW and its schedule.
    """

    def __init__(self, model: nn.Module, grid: CellGrid, *, optimization: Optimization | None = None) -> None:
        super().__init__(model, optimization=optimization)
        self.grid = grid

    def costs(self, d: Tensor) -> Float[Tensor, "B side side"]:
        """The predicted costs of the cells; here `model(d)`."""
        return self.model(d)

    def metrics(self) -> Mapping[str, Metric]:
        """Of the decided paths."""
        return {
            "regret": NormalizedRegret(),
            "cost_ratio": CostRatio(),
            "exact": ExactRate(),
            "identical": IdenticalRate(),
            "hamming": Hamming(),
        }

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the decisions by the true costs."""
        _, paths, costs = batch
        metrics.update(self.answer(inference), costs, paths)

    def answer(self, inference: il2o.Inference) -> Float[Tensor, "B side side"]:
        """The decision: the cells of the cheapest path under the predicted costs."""
        return decide(self.grid, inference)

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"] | None:
        """What the path costs above the cheapest one, relative to it."""
        if len(batch) < 3:
            return None
        _, paths, costs = batch
        return (path_costs(self.answer(inference), costs) / path_costs(paths, costs) - 1).float()

    def constant(self, training: TensorDataset) -> Float[Tensor, "side side"]:
        """The path through the cells that the paths take most often: the cheapest where a cell costs one minus its share."""
        return self.grid.shortest_paths(1 - training.tensors[1].mean(0, keepdim=True)).squeeze(0)


@final
class WarcraftTask(AbstractMapTask):
    """Paths learned from paths: a network predicts the costs of the cells, and the layer answers with a flow under them.

    With `loss="fenchel_young"` the path is to be optimal for the layer's problem, `min f(x*; w(d)) - min_x f(x; w(d))`,
    which is convex in the costs and needs no backward mode. With `loss="solution"` the occupancy of the cells is to be the
    path, `min |cells(x(w(d))) - path|^2`, through the backward mode. Predicted costs may be perturbed (`model.perturb`); the
    losses are then those of the mean over the noise.

    Args:
        side: cells along one side.
        network: from a map to costs; None takes `PatchNetwork()`.
        gamma: of the quadratic term that makes the answer differentiable. The squared error wants a larger one, 0.3, or
            first flows are paths, with no derivative.
        loss: what a training minimises. The epoch is chosen by the paths, `monitor`.
        level: mean predicted cost of every map; None lets it be learned, by the Fenchel-Young loss with a perturbation.
        perturbation: standard deviation of the noise on the predicted costs in training; 0 for none.
        copies: perturbed solutions for each map.
        tolerance: of an inference, in units of flow. It is solved exactly, by Newton's method on the dual, up to rounding.
        training_tolerance: of a solve in training by Davis-Yin; None solves exactly there too.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.warcraft import PatchNetwork, WarcraftTask
        >>> task = WarcraftTask(side=3, network=PatchNetwork(width=4), gamma=1.0)
        >>> path = task.answer(task.infer(torch.zeros(1, 24, 24, 3, dtype=torch.uint8)))
        >>> path[0].diagonal()
        tensor([1., 1., 1.])
    """

    monitor = "val/hamming"  # a smaller loss is not always a better decision, and this needs no costs either

    def __init__(
        self,
        *,
        side: int = 12,
        network: AbstractNetworkSpec | None = None,
        gamma: float = 0.01,
        loss: Literal["solution", "fenchel_young"] = "fenchel_young",
        level: float | None = 1.0,
        perturbation: float = 0.0,
        copies: int = 1,
        tolerance: float = 1e-3,
        training_tolerance: float | None = None,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if loss not in ("solution", "fenchel_young"):
            raise ValueError(f'loss must be "solution" or "fenchel_young"; got {loss!r}.')
        loose = tolerance if training_tolerance is None else training_tolerance
        for name, value in (("gamma", gamma), ("tolerance", tolerance), ("training_tolerance", loose)):
            if not value > 0:
                raise ValueError(f"WarcraftTask needs {name} > 0; got {name}={value}.")
        if level is not None and not level > 0:
            raise ValueError(f"WarcraftTask needs level > 0; got level={level}.")
        if not perturbation >= 0:
            raise ValueError(f"WarcraftTask needs perturbation >= 0; got perturbation={perturbation}.")
        if copies < 1:
            raise ValueError(f"WarcraftTask needs copies >= 1; got copies={copies}.")
        grid = CellGrid(side)
        lp = grid.program()
        layer = il2o.LPLayer(lp, gamma=gamma, tolerance=tolerance, max_steps=5000, polish=True)
        costs = (PatchNetwork() if network is None else network).build(side, level=level)
        super().__init__(PathFinder(costs, grid, layer), grid, optimization=optimization)
        self._loss = loss
        self._noise = (perturbation, copies)
        # A solve that runs out of steps is near enough for a training, so there is nothing to warn of.
        self._solve = il2o.LPLayer(
            lp,
            gamma=gamma,
            tolerance=loose,
            max_steps=300,
            polish=training_tolerance is None,
            backward=backward,
            on_failure="ignore",
        )

    def costs(self, d: Tensor) -> Tensor:
        """The predicted costs of the cells."""
        assert isinstance(self.model, PathFinder)
        return self.model.network(d)

    def infer(self, d: Tensor) -> il2o.Inference:
        """The flows."""
        return self.model(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The flows under perturbed costs; the Fenchel-Young loss needs no gradient of them."""
        w = self.grid.arc_costs(perturb(self.costs(d), *self._noise))
        if self._loss == "solution":
            return self._solve.inference(w)
        with torch.no_grad():
            solved = self._solve.inference(w)
        f = il2o.QuadraticCost(linear=w, diagonal=self._solve.gamma)
        return dataclasses.replace(solved, problem=il2o.Problem(F=f, g=il2o.NonnegativeOrthant()))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch; it takes the images and the paths, and no costs."""
        paths = batch[1]
        copies = len(inference.x) // len(paths)
        if self._loss == "fenchel_young":
            cost = inference.need_problem("fenchel_young").F
            assert isinstance(cost, il2o.QuadraticCost)
            return fenchel_young(cost, inference.x, self.grid.path_arcs(paths).repeat(copies, 1)).mean()
        mean = self.grid.cells(inference.x).unflatten(0, (copies, -1)).mean(0)
        return (mean - paths).square().sum((1, 2)).mean()

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the answer is a flow."""
        return CONSTRAINTS

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """How much of the decided path the flow does not pass."""
        return (FlowOffPath(self.grid),)

    def about(self) -> About:
        """See the base."""
        return _ABOUT

    @torch.no_grad()
    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The map with both paths, the predicted costs, and the flow."""
        image = sample["inputs"].unsqueeze(0).to(self.device)
        flow = self.grid.cells(self.infer(image).x)[0].cpu()
        figures.example(figure, sample, costs=self.costs(image)[0].cpu(), flow=flow)

    @torch.no_grad()
    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Maps with their paths, and what doubt costs."""
        chosen = figures.examples(samples)
        images = samples.batch[0][chosen].to(self.device)
        flow = self.grid.cells(self.infer(images).x).cpu()
        return {
            "Paths": figures.paths(samples, chosen, costs=self.costs(images).cpu(), flow=flow),
            "Doubt": figures.doubt(samples),
        }

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """More on the test maps.

        `exact_by_certificate` is the share of exact paths by the worst label of the inference, where there are any;
        `max_constraint_violation` is Euclidean, in units of flow, over the converged inferences.
        """
        _, paths, costs = samples.batch
        exact = path_costs(samples.answer, costs) <= (1 + SAME) * path_costs(paths, costs)
        by_label = {label.name: samples.worst == label for label in il2o.Label}
        violation = samples.values[:, samples.names.index(VIOLATION)]
        converged = torch.ones_like(exact) if samples.status is None else samples.status == il2o.Status.CONVERGED
        return {
            "exact_by_certificate": {
                name: float(exact[where].double().mean()) for name, where in by_label.items() if bool(where.any())
            },
            "max_constraint_violation": float(violation[converged].max()) if bool(converged.any()) else None,
        }
