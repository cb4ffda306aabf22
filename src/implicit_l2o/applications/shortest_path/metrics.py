"""The metrics of the paths: what they cost above the best ones, as it came true and on average over the noise."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import regret


@final
class NormalizedRegret(Metric):
    """`losses.normalized_regret` over all batches and processes: the sum of the regrets over that of the optimal costs.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.metrics import NormalizedRegret
        >>> metric = NormalizedRegret()
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 2.0]]), torch.tensor([[0.0, 1.0]]))
        >>> metric.compute()
        tensor(0.7500)
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    extra: Tensor
    optimal: Tensor

    def __init__(self) -> None:
        super().__init__()
        # In double precision, so that the sum does not depend on how the samples were batched.
        self.add_state("extra", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("optimal", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B arcs"], costs: Float[Tensor, "B arcs"], best: Float[Tensor, "B arcs"]
    ) -> None:
        """Add a batch of decisions `x`, with the costs that came true and the best decisions under them."""
        self.extra += regret(x, costs, best).double().sum()
        self.optimal += (costs * best).sum(1).abs().double().sum()

    def compute(self) -> Float[Tensor, ""]:
        """The regret so far; NaN before the first sample."""
        return (self.extra / self.optimal).float()


@final
class ExpectedExcess(Metric):
    """What the decisions cost on average over the noise above the best decisions that can be made from the contexts.

    It is `sum <m, x - x*(m)> / sum <c, x*(c)>` with `m` the conditional mean of the costs `c`: the regret above the floor,
    without the noise of the costs that came true, and so never negative.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.metrics import ExpectedExcess
        >>> metric = ExpectedExcess()
        >>> x, best = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
        >>> costs, mean_costs = torch.tensor([[2.0, 5.0]]), torch.tensor([[3.0, 4.0]])
        >>> metric.update(x, costs, best, mean_costs, best_expected=best)
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    extra: Tensor
    optimal: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("extra", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("optimal", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "B arcs"],
        costs: Float[Tensor, "B arcs"],
        best: Float[Tensor, "B arcs"],
        mean_costs: Float[Tensor, "B arcs"],
        best_expected: Float[Tensor, "B arcs"],
    ) -> None:
        """Add a batch of decisions `x`, with the best ones under the costs that came true and under their means."""
        self.extra += regret(x, mean_costs, best_expected).double().sum()
        self.optimal += (costs * best).sum(1).abs().double().sum()

    def compute(self) -> Float[Tensor, ""]:
        """The excess so far; NaN before the first sample."""
        return (self.extra / self.optimal).float()


def path_metrics() -> dict[str, Metric]:
    """Fresh metrics of a path task."""
    return {"regret": NormalizedRegret(), "expected_excess": ExpectedExcess()}


def update_metrics(metrics: MetricCollection, grid: Grid, x: Float[Tensor, "B arcs"], batch: Sequence[Tensor]) -> None:
    """Price decisions `x` on a batch `(contexts, paths, costs, mean_costs)`."""
    _, paths, costs, mean_costs = batch
    best_expected = grid.shortest_paths(mean_costs)
    metrics.update(x=x, costs=costs, best=paths, mean_costs=mean_costs, best_expected=best_expected)
