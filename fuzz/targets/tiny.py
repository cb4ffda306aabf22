"""The smallest application, which the configurations of the fuzzer name: sizes are bounded, so that no run is large."""

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError

import implicit_l2o as il2o
from implicit_l2o.training import AbstractData, AbstractTask, Splits


class Tiny(AbstractTask):
    """Nonnegative points."""

    def __init__(self, size: int = 3, backward: il2o.AbstractBackward | None = None) -> None:
        if not 1 <= size <= 16:
            raise ValueError(f"Tiny needs 1 <= size <= 16; got {size}.")
        super().__init__(
            il2o.ImplicitLayer(
                encoder=nn.Linear(size, size),
                build=lambda y: il2o.ForwardBackward(
                    il2o.Problem(F=il2o.QuadraticCost(linear=-y, diagonal=1.0), g=il2o.NonnegativeOrthant())
                ),
                x0=torch.zeros_like,
                backward=backward,
                certificates=(il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3)),),
            )
        )

    def loss(self, inference, batch):
        """Squared error."""
        return (inference.x - batch[1]).square().mean()

    def metrics(self):
        """One."""
        return {"squared error": MeanSquaredError()}


class Points(AbstractData):
    """Random ones."""

    def __init__(self, samples: int = 12, batch_size: int = 4) -> None:
        if not 4 <= samples <= 100:
            raise ValueError(f"Points needs 4 <= samples <= 100; got {samples}.")
        super().__init__(batch_size=batch_size)
        self.count = samples

    def load(self):
        """Three parts."""
        parts = (torch.randn(self.count, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
        return Splits(*(TensorDataset(d, d.clamp_min(0.0)) for d in parts))
