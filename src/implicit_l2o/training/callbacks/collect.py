"""Keeps what the test found of every sample."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from implicit_l2o.training.prediction import gather_samples


class CollectSamples(pl.Callback):
    """Collects what `test_step` returned, over all processes, in the order of the data set.

    Attributes:
        found: by name, each `(N, ...)` on the CPU; empty before a test.
    """

    def __init__(self) -> None:
        self.found: Mapping[str, Tensor] = {}
        self._parts: list[Mapping[str, Tensor]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an earlier test."""
        self._parts = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's part."""
        self._parts.append({name: value.detach().cpu() for name, value in outputs.items()})

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the parts together."""
        parts, self._parts = self._parts, []
        self.found = gather_samples({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
