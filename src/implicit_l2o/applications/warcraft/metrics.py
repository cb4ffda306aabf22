"""The metrics of paths over cells: what they cost above the cheapest ones, and how often they are as cheap."""

from abc import abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from implicit_l2o.data.warcraft import path_costs

SAME = 1e-5  # relative: costs that differ by less are equal


class AbstractPathMetric(Metric):
    """A ratio of two sums over the maps."""

    is_differentiable = False
    full_state_update = False

    above: Tensor
    below: Tensor

    def __init__(self) -> None:
        super().__init__()
        # In double precision, so that the sums do not depend on how the maps were batched.
        self.add_state("above", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("below", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def parts(self, paths: Tensor, costs: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """What every map adds to either sum, `(B,)`."""

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        paths: Float[Tensor, "B side side"],
        costs: Float[Tensor, "B side side"],
        best: Float[Tensor, "B side side"],
    ) -> None:
        """Add a batch of decided paths, with the true costs and the cheapest paths under them."""
        above, below = self.parts(paths, costs, best)
        self.above += above.double().sum()
        self.below += below.double().sum()

    def compute(self) -> Float[Tensor, ""]:
        """The ratio so far; NaN before the first map."""
        return (self.above / self.below).float()


@final
class NormalizedRegret(AbstractPathMetric):
    """What the paths cost above the cheapest ones, all maps together, relative to what those cost.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.warcraft.metrics import NormalizedRegret
        >>> metric = NormalizedRegret()
        >>> costs = torch.tensor([[[9.0, 2.0], [3.0, 4.0]]])
        >>> metric.update(torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), costs, torch.eye(2)[None])
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = False

    def parts(self, paths: Tensor, costs: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """See the base."""
        optimal = path_costs(best, costs)
        return path_costs(paths, costs) - optimal, optimal


@final
class CostRatio(AbstractPathMetric):
    """What a path costs in units of the cheapest one, the mean over the maps."""

    higher_is_better = False

    def parts(self, paths: Tensor, costs: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """See the base."""
        ratio = path_costs(paths, costs) / path_costs(best, costs)
        return ratio, torch.ones_like(ratio)


@final
class ExactRate(AbstractPathMetric):
    """The share of the maps whose path costs no more than the cheapest one; there are often several such paths."""

    higher_is_better = True

    def parts(self, paths: Tensor, costs: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """See the base."""
        exact = path_costs(paths, costs) <= (1 + SAME) * path_costs(best, costs)
        return exact, torch.ones_like(exact)


@final
class IdenticalRate(AbstractPathMetric):
    """The share of the maps whose path has the very cells of the one on file."""

    higher_is_better = True

    def parts(self, paths: Tensor, costs: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """See the base."""
        same = (paths == best).flatten(1).all(1)
        return same, torch.ones_like(same)


@final
class Hamming(AbstractPathMetric):
    """In how many cells a path differs from the one on file, the mean over the maps; it needs no costs."""

    higher_is_better = False

    def parts(self, paths: Tensor, costs: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """See the base."""
        differ = (paths != best).flatten(1).sum(1)
        return differ, torch.ones_like(differ)
