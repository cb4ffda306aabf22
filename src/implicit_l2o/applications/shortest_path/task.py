"""Training the path model from solutions alone: the costs that came true never enter, not even to choose the epoch."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path import figures
from implicit_l2o.applications.shortest_path.certificates import CONSTRAINTS, VIOLATION, FlowOffPath
from implicit_l2o.applications.shortest_path.metrics import NormalizedRegret
from implicit_l2o.applications.shortest_path.model import FlowModel, Perturbation, cost_network, decide
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import fenchel_young, normalized_regret, regret, solution_mse
from implicit_l2o.training import About, AbstractTask, Optimization, Samples, Splits

_ABOUT = About(
    title="Shortest paths from contexts",
    summary="From a context alone, without the costs of the arcs, to the path that will be the shortest. It is learned from "
    "contexts and paths that were taken; the costs that came true are never seen.",
    problem=r"x_\theta(d) = \operatorname*{argmin}_{x} \; \langle w_\theta(d), x \rangle + \frac{\gamma}{2} \| x \|^2 "
    r"\quad \text{subject to} \quad A x = b, \; x \ge 0",
    guarantees=(
        "The flow x is nonnegative, exactly.",
        "Its distance to flow conservation, A x = b, is at most the residual of the solve (Davis-Yin), which is "
        "measured for every answer.",
        "The decision is an exact shortest path under the predicted costs, so it is always a path.",
    ),
)


@final
class PathTask(AbstractTask):
    """Shortest paths learned from solutions: a network predicts costs, and the layer answers with a flow under them.

    In training the predicted costs are perturbed (`Perturbation`), which smooths the decision. With `loss="solution"` the
    mean solution is to be the path that was taken, `min |E x(w(d) + e) - x*|^2`, through the backward mode. With
    `loss="fenchel_young"` that path is to be optimal, `min E [f(x*; w(d) + e) - min_x f(x; w(d) + e)]`, which is convex in
    the costs and needs no backward mode.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        gamma: of the quadratic term that makes the answer differentiable; with costs of order 1 a value near 1 trains best.
        hidden: width of the cost network.
        loss: what a training minimises, on the validation data too.
        perturbation: standard deviation of the noise on the predicted costs in training; 0 for none.
        copies: perturbed solutions for each context.
        tolerance: of an inference, in units of flow.
        training_tolerance: of a solve in training. 3e-3 takes several times the iterations and gives the same regret.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path import PathTask
        >>> task = PathTask(side=3, copies=2)
        >>> path = task.answer(task.infer(torch.zeros(1, 5)))  # a path on this grid has four arcs
        >>> path.sum(), task.training_inference(torch.zeros(1, 5)).x.shape
        (tensor(4.), torch.Size([2, 12]))
    """

    def __init__(
        self,
        *,
        side: int = 5,
        features: int = 5,
        gamma: float = 1.0,
        hidden: int = 50,
        loss: Literal["solution", "fenchel_young"] = "solution",
        perturbation: float = 1.5,
        copies: int = 8,
        tolerance: float = 1e-4,
        training_tolerance: float = 0.1,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if loss not in ("solution", "fenchel_young"):
            raise ValueError(f'loss must be "solution" or "fenchel_young"; got {loss!r}.')
        if not training_tolerance > 0:
            raise ValueError(f"PathTask needs training_tolerance > 0; got {training_tolerance}.")
        flow = FlowModel(Grid(side), gamma, tolerance)
        network = cost_network(features, flow.grid.n_arcs, hidden=hidden)
        super().__init__(flow.layer(network, backward=backward, certificates=CONSTRAINTS), optimization=optimization)
        self.flow = flow
        self._loss = loss
        self._perturb = Perturbation(perturbation, copies=copies)
        # From costs on, so that a checkpoint holds the network once.
        self._solve = flow.layer(nn.Identity(), tolerance=training_tolerance, backward=backward)

    @property
    def network(self) -> nn.Module:
        """`d -> w`, the predicted costs."""
        assert isinstance(self.model, il2o.ImplicitLayer)
        return self.model.encoder

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The solutions under perturbed costs, `copies` for each context, one copy of the batch after another."""
        return self._solve.inference(self._perturb(self.network(d)))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch; it takes the contexts and the paths, and no costs."""
        paths = batch[1]
        copies = len(inference.x) // len(paths)
        if self._loss == "fenchel_young":
            cost = inference.need_problem("fenchel_young").F
            assert isinstance(cost, il2o.QuadraticCost)
            return fenchel_young(cost, inference.x, paths.repeat(copies, 1)).mean()
        return solution_mse(inference.x.unflatten(0, (copies, -1)).mean(0), paths).mean()

    def metrics(self) -> Mapping[str, Metric]:
        """The regret of the decisions."""
        return {"regret": NormalizedRegret()}

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the decisions by the costs that came true."""
        _, paths, costs, *_ = batch
        metrics.update(self.answer(inference), costs, paths)

    def answer(self, inference: il2o.Inference) -> Float[Tensor, "B arcs"]:
        """The decision: the exact shortest path under the predicted costs; `x` itself where nothing was solved."""
        return inference.x if inference.problem is None else decide(self.flow.grid, inference)

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"] | None:
        """What the decision costs above the best one, relative to it."""
        if len(batch) < 3:
            return None
        _, paths, costs, *_ = batch
        return regret(self.answer(inference), costs, paths) / (costs * paths).sum(1)

    def constant(self, training: TensorDataset) -> Float[Tensor, " arcs"]:
        """The path that shares the most arcs with those taken: of all paths the nearest on average, by the squared error.

        It is the shortest path under minus the mean of the paths, since all paths of a grid have equally many arcs.
        """
        return self.flow.grid.shortest_paths(-training.tensors[1].mean(0, keepdim=True)).squeeze(0)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """How much of the flow leaves the decided path."""
        return (FlowOffPath(self.flow.grid),)

    def about(self) -> About:
        """See the base."""
        return _ABOUT

    @torch.no_grad()
    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The predicted costs with both paths, and the flow."""
        inference = self.infer(sample["inputs"].unsqueeze(0).to(self.device))
        w = self.network(sample["inputs"].unsqueeze(0).to(self.device))
        figures.example(figure, self.flow.grid, sample, costs=w[0].cpu(), flow=inference.x[0].cpu())

    @torch.no_grad()
    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Paths on the grid, what doubt costs, and the convergence of the inferences."""
        contexts, _, _, mean_costs = samples.batch
        flow = self.infer(contexts.to(self.device)).x.cpu()
        floor = self.flow.grid.shortest_paths(mean_costs)
        trace = _trace(self.flow, self.network(contexts.to(self.device)))
        return {
            "Paths": figures.paths(self.flow.grid, samples, flow),
            "Doubt": figures.doubt(samples, floor),
            "Residuals": figures.residuals(trace.cpu(), self.flow.tolerance),
        }

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """More on the regret, and the largest violation of the constraints.

        `regret_floor` is that of the best possible predictor (see `Floor`), and `excess` what the model has above it.
        `excess_expected` is the same on costs averaged over their noise, which that difference still contains.
        `regret_by_certificate` is the regret of the inferences by their worst label, where there are any.
        `max_constraint_violation` is Euclidean, in units of flow, over the converged inferences.
        """
        _, paths, costs, mean_costs = samples.batch
        decided = samples.answer
        best = self.flow.grid.shortest_paths(mean_costs)
        floor = float(normalized_regret(best, costs, paths))
        by_label = {label.name: samples.worst == label for label in il2o.Label}
        violation = samples.values[:, samples.names.index(VIOLATION)]
        converged = torch.ones_like(samples.worst, dtype=torch.bool)
        if samples.status is not None:
            converged = samples.status == il2o.Status.CONVERGED
        return {
            "regret_floor": floor,
            "excess": float(normalized_regret(decided, costs, paths)) - floor,
            "excess_expected": float(regret(decided, mean_costs, best).sum() / (costs * paths).sum()),
            "regret_by_certificate": {
                name: float(normalized_regret(decided[where], costs[where], paths[where]))
                for name, where in by_label.items()
                if bool(where.any())
            },
            "max_constraint_violation": float(violation[converged].max()) if bool(converged.any()) else None,
        }


def _trace(flow: FlowModel, w: Float[Tensor, "B arcs"]) -> Float[Tensor, "steps B"]:
    """The residual of every inference at every iteration, past the tolerance."""
    stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=figures.STEPS, check_every=1, trace=True)
    solver = il2o.KrasnoselskiiMann(stopping, relaxation=flow.relaxation)
    trace = il2o.solve(flow(w), torch.zeros_like(w), solver=solver).trace
    if trace is None:
        raise RuntimeError("the solve kept no trace although it was asked to.")
    return trace
