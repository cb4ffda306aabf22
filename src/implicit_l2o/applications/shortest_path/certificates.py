"""What is certified of a predicted path: that the answer is a flow, and that the model is as sure as it usually is."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.model import FlowModel
from implicit_l2o.data.shortest_path import Grid

VIOLATION = "constraint violation"
MOST_VIOLATION = 1e-3  # units of flow; the whole flow is 1


@dataclass(frozen=True, eq=False)
class FlowOffPath(il2o.AbstractMeasure):
    """The share of the flow that leaves the decided path: 0 when the layer's answer is that path, towards 1 in doubt.

    The quadratic term spreads the flow over paths of nearly equal predicted cost, so the answer says by itself how close
    the decision was.

    Args:
        grid: decides.
        name: shown in the report.
    """

    grid: Grid
    name: str = field(default="flow off the path", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`1 - <x, path> / length`, per sample."""
        cost = inference.need_problem(self.name).F
        if not (isinstance(cost, il2o.QuadraticCost) and isinstance(cost.linear, Tensor)):
            raise TypeError(f"'{self.name}' needs a QuadraticCost with a linear part as the problem's F.")
        path = self.grid.shortest_paths(cost.linear)
        return 1 - (inference.x * path).sum(1) / path.sum(1)


@torch.no_grad()
def path_certificates(
    flow: FlowModel, network: nn.Module, contexts: Float[Tensor, "B features"]
) -> tuple[il2o.Certificate, ...]:
    """The constraints within a fixed limit, twice (measured, and by the residual's bound); doubt against the training data.

    Args:
        flow: the problem.
        network: `d -> w`, trained.
        contexts: of the training data; 5 % of them are more doubtful than what fails, 10 % than what passes.
    """
    solution = flow.layer(network)(contexts)
    inference = il2o.Inference.of(solution, problem=flow(network(contexts)).problem, data=contexts)
    return (
        il2o.Certificate(il2o.ConstraintViolation(name=VIOLATION), il2o.Threshold(MOST_VIOLATION)),
        il2o.Certificate(il2o.DavisYinDistance(), il2o.Threshold(MOST_VIOLATION)),
        *il2o.calibrate([FlowOffPath(flow.grid)], inference, p_pass=0.9, p_warn=0.05, p_fail=0.05),
    )
