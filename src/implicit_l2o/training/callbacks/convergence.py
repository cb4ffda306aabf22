"""Whether the solves of every epoch met their tolerance."""

from typing import Any, final

import lightning.pytorch as pl
import torch
from torch import Tensor

import implicit_l2o as il2o


@final
class Convergence(pl.Callback):
    """Keeps, for every epoch, how many of the solves of `task.solve` met their tolerance; on one process.

    `SolverStatistics` logs windows of steps; this keeps whole epochs, in memory, for the record of a training. A task that
    solves nothing leaves the lists empty.

    Attributes:
        shares: of the training samples that converged, one an epoch.
        training: the smallest share of a training batch, one an epoch.
        validation: the smallest share of a validation batch, one an epoch.
        residual: the largest of the training.

    Example:
        >>> from implicit_l2o.training.callbacks import Convergence
        >>> Convergence().shares
        []
    """

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.training: list[float] = []
        self.validation: list[float] = []
        self.residual = 0.0
        self._seen: dict[str, list[Tensor]] = {"training": [], "validation": []}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step's solves."""
        self._look("training", pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at a validation batch's."""
        self._look("validation", pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch."""
        if self._seen["training"]:
            self.shares.append(float(torch.cat(self._seen["training"]).double().mean()))
        for stage, kept in (("training", self.training), ("validation", self.validation)):
            if self._seen[stage]:
                kept.append(min(float(met.double().mean()) for met in self._seen[stage]))
            self._seen[stage] = []

    def _look(self, stage: str, task: Any) -> None:
        solve = getattr(task, "solve", None)
        if solve is None:
            return
        self._seen[stage].append(solve.status == il2o.Status.CONVERGED)
        if stage == "training":
            self.residual = max(self.residual, float(solve.residual.max()))
