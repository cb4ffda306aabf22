"""What all trainings of a path model share: how it decides, what is measured, certified and drawn."""

import copy
import sys
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path import figures
from implicit_l2o.applications.shortest_path.certificates import CONSTRAINTS, VIOLATION, FlowOffPath
from implicit_l2o.applications.shortest_path.metrics import path_metrics, update_metrics
from implicit_l2o.applications.shortest_path.model import cost_network, decide, path_layer, path_program
from implicit_l2o.applications.shortest_path.served import ServedPaths
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import normalized_regret, regret
from implicit_l2o.training import AbstractTask, Optimization, Samples, Scene, Splits


class AbstractPathTask(AbstractTask, ABC):
    """A network `d -> w`, and the layer `w -> x(w)` that answers with a flow; a subclass says how it is trained.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        gamma: of the layer's quadratic term.
        tolerance: of an inference, in units of flow.
        optimization: AdamW and its schedule.
    """

    served_by = ServedPaths

    def __init__(
        self,
        *,
        side: int,
        features: int,
        hidden: int,
        gamma: float,
        tolerance: float,
        optimization: Optimization | None,
    ) -> None:
        grid = Grid(side)
        super().__init__(cost_network(features, grid.n_arcs, hidden=hidden), optimization=optimization)
        self.grid = grid
        self.program = path_program(grid)
        self._tolerance = tolerance
        self.flow = path_layer(self.program, gamma=gamma, tolerance=tolerance)

    @property
    def network(self) -> nn.Module:
        """`d -> w`, the predicted costs."""
        return self.model

    @final
    def infer(self, d: Tensor) -> il2o.Inference:
        """The flow under the predicted costs."""
        return self.flow.inference(self.network(d))

    @final
    def validation_inference(self, d: Tensor) -> il2o.Inference:
        """The decision alone, for which no flow is needed."""
        return il2o.Inference(x=self.grid.shortest_paths(self.network(d)), data=d)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the answer is a flow."""
        return CONSTRAINTS

    def metrics(self) -> Mapping[str, Metric]:
        """The regret of the decisions, and what of it is not the noise."""
        return path_metrics()

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the decisions by the costs that came true, and by their means."""
        update_metrics(metrics, self.grid, self.answer(inference), batch)

    def answer(self, inference: il2o.Inference) -> Float[Tensor, "B arcs"]:
        """The decision: the exact shortest path under the predicted costs; `x` itself where nothing was solved."""
        return inference.x if inference.problem is None else decide(self.grid, inference)

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
        return self.grid.shortest_paths(-training.tensors[1].mean(0, keepdim=True)).squeeze(0)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """How much of the flow leaves the decided path."""
        return (FlowOffPath(self.grid),)

    def scene(self) -> Scene:
        """The flow on the grid, and gradients in the predicted costs."""
        return Scene(
            picture=figures.picture(self.grid),
            values_name="flow x(d)",
            split=lambda d: (self.network(d), self.flow.inference),
            parameters_name="predicted costs w(d)",
        )

    @torch.no_grad()
    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The predicted costs with both paths, and the flow."""
        inference = self.infer(sample["inputs"].unsqueeze(0).to(self.device))
        w = self.network(sample["inputs"].unsqueeze(0).to(self.device))
        figures.example(figure, self.grid, sample, costs=w[0].cpu(), flow=inference.x[0].cpu())

    @torch.no_grad()
    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Paths on the grid, what doubt costs, and the convergence of the inferences."""
        contexts, _, _, mean_costs = samples.batch
        flow = self.infer(contexts.to(self.device)).x.cpu()
        floor = self.grid.shortest_paths(mean_costs)
        trace = _trace(self.flow, self.network(contexts.to(self.device)))
        return {
            "Paths": figures.paths(self.grid, samples, flow),
            "Doubt": figures.doubt(samples, floor),
            "Residuals": figures.residuals(trace.cpu(), self._tolerance),
        }

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """More on the regret, and the largest violation of the constraints.

        `regret_floor` is that of the best possible predictor (see `Floor`), and `excess` what the model has above it.
        `excess_expected` is the same on costs averaged over their noise, which that difference still contains.
        `regret_by_certificate` is the regret of the inferences by their worst label, where there are any.
        `process_gigabytes` is the most memory that the process has held so far.
        `max_constraint_violation` is Euclidean, in units of flow, over the converged inferences.
        """
        _, paths, costs, mean_costs = samples.batch
        decided = samples.answer
        best = self.grid.shortest_paths(mean_costs)
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
            "process_gigabytes": process_gigabytes(),
            "max_constraint_violation": float(violation[converged].max()) if bool(converged.any()) else None,
        }


def process_gigabytes() -> float | None:
    """The most resident memory of this process so far, in 1e9 bytes; None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _trace(flow: il2o.LPLayer, w: Float[Tensor, "B arcs"]) -> Float[Tensor, "steps B"]:
    """The residual of every inference at every iteration, past the tolerance."""
    traced = copy.copy(flow)
    stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=figures.STEPS, check_every=1, trace=True)
    traced.solver = il2o.KrasnoselskiiMann(stopping, relaxation=flow.solver.relaxation)
    trace = traced(w).trace
    if trace is None:
        raise RuntimeError("the solve kept no trace although it was asked to.")
    return trace
