"""The metrics of the paths: what they cost above the best ones, as it came true and on average over the noise."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.training import ExpectedExcess, NormalizedRegret


def path_metrics() -> dict[str, Metric]:
    """Fresh metrics of a path task."""
    return {"regret": NormalizedRegret(), "expected_excess": ExpectedExcess()}


def update_metrics(metrics: MetricCollection, grid: Grid, x: Float[Tensor, "B arcs"], batch: Sequence[Tensor]) -> None:
    """Price decisions `x` on a batch `(contexts, paths, costs, mean_costs)`."""
    _, paths, costs, mean_costs = batch
    best_expected = grid.shortest_paths(mean_costs)
    metrics.update(x=x, costs=costs, best=paths, mean_costs=mean_costs, best_expected=best_expected)
