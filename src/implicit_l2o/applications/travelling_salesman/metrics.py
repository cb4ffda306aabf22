"""The metric of the tours: what they cost above the best ones."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from implicit_l2o.losses import regret


@final
class NormalizedRegret(Metric):
    """`losses.normalized_regret` over all batches and processes: the sum of the regrets over that of the optimal costs.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.travelling_salesman.metrics import NormalizedRegret
        >>> metric = NormalizedRegret()
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.compute()
        tensor(1.5000)
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
        self, x: Float[Tensor, "B edges"], costs: Float[Tensor, "B edges"], best: Float[Tensor, "B edges"]
    ) -> None:
        """Add a batch of tours `x`, with the costs that came true and the best tours under them."""
        self.extra += regret(x.double(), costs.double(), best.double()).sum()
        self.optimal += (costs.double() * best.double()).sum(1).abs().sum()

    def compute(self) -> Float[Tensor, ""]:
        """The regret so far; NaN before the first sample."""
        return (self.extra / self.optimal).float()
