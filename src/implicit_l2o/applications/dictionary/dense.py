"""A dense network of as many parameters, trained by the same loss: it learns the answer, not the problem."""

import os
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.dictionary.data import Sizes, world
from implicit_l2o.applications.dictionary.metrics import recovery_metrics, update_recovery
from implicit_l2o.training import AbstractTask, Optimization


@final
class DenseTask(AbstractTask):
    """`x = W2 relu(W1 d + b1) + b2`, by the mean squared error.

    Args:
        sizes: of the problem; None takes the published ones.
        hidden: units; 178 give the published problem 62,728 parameters, the implicit dictionary has 62,500.
        seed: of the problem and the weights; None takes the run's.
        optimization: None takes AdamW at 1e-3.

    Raises:
        ValueError: `hidden` is below 1.

    Example:
        >>> from implicit_l2o.applications.dictionary.dense import DenseTask
        >>> sum(parameter.numel() for parameter in DenseTask().parameters())
        62728
    """

    monitor = "val/mse"

    def __init__(
        self,
        *,
        sizes: Sizes | None = None,
        hidden: int = 178,
        seed: int | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if hidden < 1:
            raise ValueError(f"DenseTask needs hidden >= 1; got hidden={hidden}.")
        sizes = Sizes() if sizes is None else sizes
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(nn.Linear(sizes.measurements, hidden), nn.ReLU(), nn.Linear(hidden, sizes.signal))
        super().__init__(network, optimization=optimization or Optimization(learning_rate=1e-3))
        self.register_buffer("A", world(sizes, seed).A)

    def infer(self, d: Tensor) -> il2o.Inference:
        """The network's signals."""
        return il2o.Inference(x=self.model(d), data=d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """Mean squared error over samples and entries."""
        return (inference.x - batch[1]).square().mean()

    def metrics(self) -> Mapping[str, Metric]:
        """Those of the implicit dictionary."""
        return recovery_metrics(self.get_buffer("A"))

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """See `update_recovery`."""
        update_recovery(metrics, inference, batch)
