"""The one metric of the digits that torchmetrics lacks."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric


@final
class CrossEntropy(Metric):
    """Mean negative log-likelihood of the true classes, in nats, by logits.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.digits.metrics import CrossEntropy
        >>> metric = CrossEntropy()
        >>> metric.update(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> metric.compute()  # log 2
        tensor(0.6931)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "B classes"], target: Int[Tensor, " B"]) -> None:
        """Add a batch."""
        self.total += F.cross_entropy(logits, target, reduction="none").double().sum()
        self.count += len(target)

    def compute(self) -> Tensor:
        """The mean over everything added."""
        return (self.total / self.count).float()
