"""The metric of the selections: what they are worth below the best ones."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from implicit_l2o.losses import regret


@final
class NormalizedRegret(Metric):
    """`losses.normalized_regret` for values that are maximised, over all batches and processes.

    Args:
        published: count only the test samples that belong to the data set of the published tables.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.knapsack.metrics import NormalizedRegret
        >>> metric, every = NormalizedRegret(), torch.ones(1, dtype=torch.bool)
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 2.0]]), torch.tensor([[1.0, 0.0]]), every)
        >>> metric.compute()
        tensor(0.6000)
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    lost: Tensor
    optimal: Tensor

    def __init__(self, *, published: bool = False) -> None:
        super().__init__()
        self.published = published
        # In double precision, so that the sum does not depend on how the samples were batched.
        self.add_state("lost", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("optimal", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "B items"],
        values: Float[Tensor, "B items"],
        best: Float[Tensor, "B items"],
        published: Bool[Tensor, " B"],
    ) -> None:
        """Add a batch of selections `x`, with the values that came true and the best selections under them."""
        counted = published if self.published else torch.ones_like(published)
        self.lost += regret(x, -values, best)[counted].double().sum()
        self.optimal += (values * best).sum(1)[counted].double().sum()

    def compute(self) -> Float[Tensor, ""]:
        """The regret so far; NaN before the first sample."""
        return (self.lost / self.optimal).float()
