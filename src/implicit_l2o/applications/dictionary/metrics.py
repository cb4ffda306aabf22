"""The metrics of recovered signals: torchmetrics' squared error, and the largest error of fidelity."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, MetricCollection

import implicit_l2o as il2o


@final
class LargestInfidelity(Metric):
    """The largest `|A x - d| / |d|` of all samples; 0 for `d = 0` and `A x = 0`.

    Args:
        A: measurement matrix.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.dictionary.metrics import LargestInfidelity
        >>> metric = LargestInfidelity(torch.tensor([[1.0, 1.0]]))
        >>> metric.update(torch.tensor([[1.0, 2.0], [1.0, 1.0]]), torch.tensor([[4.0], [2.0]]))
        >>> metric.compute()
        tensor(0.2500)
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    largest: Tensor
    A: Tensor

    def __init__(self, A: Float[Tensor, "measurements signal"]) -> None:
        super().__init__()
        self.register_buffer("A", A, persistent=False)
        self.add_state("largest", torch.zeros(()), dist_reduce_fx="max")

    def update(self, x: Float[Tensor, "B signal"], d: Float[Tensor, "B measurements"]) -> None:
        """Add a batch of signals and their measurements."""
        values = il2o.RelativeDataFidelity(il2o.Matrix(self.A))(il2o.Inference(x=x, data=d))
        self.largest = torch.maximum(self.largest, values.max())

    def compute(self) -> Float[Tensor, ""]:
        """The largest so far."""
        return self.largest


def recovery_metrics(A: Float[Tensor, "measurements signal"]) -> dict[str, Metric]:
    """Mean squared error over samples and entries, as published, and the largest relative fidelity."""
    return {"mse": MeanSquaredError(), "infidelity": LargestInfidelity(A)}


def update_recovery(metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
    """Add a batch; each metric takes of the arguments what it knows by name."""
    metrics.update(preds=inference.x, target=batch[1], x=inference.x, d=batch[0])
