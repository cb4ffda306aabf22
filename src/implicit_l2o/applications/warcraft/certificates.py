"""What is certified of a predicted path: that the answer is a flow, and that the model is as sure as it usually is."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.warcraft.model import decide
from implicit_l2o.data.warcraft import CellGrid

VIOLATION = "constraint violation"
MOST_VIOLATION = 1e-2  # units of flow; the whole flow is 1

# That the answer is a flow, twice: as measured, and by the bound that the residual gives.
CONSTRAINTS = (
    il2o.Certificate(il2o.ConstraintViolation(name=VIOLATION), il2o.Threshold(MOST_VIOLATION)),
    il2o.Certificate(il2o.DavisYinDistance(), il2o.Threshold(MOST_VIOLATION)),
)


@dataclass(frozen=True, eq=False)
class FlowOffPath(il2o.AbstractMeasure):
    """The share of the decided path that the flow does not pass: 0 when the layer's answer is that path, towards 1 in doubt.

    The quadratic term spreads the flow over paths of nearly equal predicted cost, so the answer says by itself how close
    the decision was.

    Args:
        grid: decides.
        name: shown in the report.
    """

    grid: CellGrid
    name: str = field(default="flow off the path", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`1 - <cells(x), path> / |path|`, per sample."""
        path = decide(self.grid, inference)
        return 1 - (self.grid.cells(inference.x) * path).sum((1, 2)) / path.sum((1, 2))
