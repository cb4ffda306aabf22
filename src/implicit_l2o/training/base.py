"""What all trainings share: the optimizer and its schedule, the record of every epoch, and the choice of the best one."""

import copy
import logging
import signal
import sys
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from tqdm import tqdm


class AbstractTask(pl.LightningModule):
    """Trains a model by AdamW under a cosine schedule and keeps the weights of the epoch with the best validation.

    A subclass says the loss of a batch and the metrics of a validation batch, and nothing else. When the training ends,
    the model has the weights of the best epoch and is in evaluation mode.

    Args:
        model: whose parameters are trained, in place.
        monitor: the validation metric that chooses the epoch; smaller is better.
        learning_rate: at the start; it falls to zero along a cosine, step by step.
        weight_decay: of AdamW, on matrices; biases have none.
        weight_average: decay of the running average of the weights, a step; its memory is `1 / (1 - decay)` steps. With it
            the averaged weights are validated and kept. 0 for none.

    Raises:
        ValueError: `weight_average` is outside [0, 1).

    Attributes:
        history: one dictionary an epoch: the mean training loss as `"loss"`, and the validation metrics.
        best_epoch: index into `history`; None before the first epoch ends.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        monitor: str,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
        weight_average: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= weight_average < 1:
            raise ValueError(f"weight_average must be in [0, 1); got {weight_average}.")
        self.model = model
        self.monitor = monitor
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.weight_average = weight_average
        self.history: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self._best_state: dict[str, Tensor] = {}
        self._average: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._metrics: list[tuple[int, Mapping[str, float]]] = []

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The scalar to minimise on a training batch."""

    @abstractmethod
    def metrics(self, batch: Any) -> Mapping[str, float]:
        """Metrics of a validation batch, without gradients; several batches are averaged, weighted by their size."""

    @final
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss, recorded."""
        loss = self.loss(batch)
        self._losses.append(loss.detach())
        return loss

    @final
    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average towards the weights; early on it is the plain mean, so that the start is soon forgotten."""
        if not self.weight_average:
            return
        weights = list(self.model.parameters())
        if not self._average:
            self._average = [w.detach().clone() for w in weights]
        decay = min(self.weight_average, self.global_step / (self.global_step + 5))
        for average, weight in zip(self._average, weights, strict=True):
            average.lerp_(weight, 1 - decay)

    @final
    def on_validation_start(self) -> None:
        """Validate the average."""
        self._swap()

    @final
    def on_validation_end(self) -> None:
        """Train on from where the training was."""
        self._swap()

    @final
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The metrics, recorded."""
        self._metrics.append((len(batch[0]), self.metrics(batch)))

    @final
    def on_validation_epoch_end(self) -> None:
        """Write the epoch down, and keep its weights where it is the best so far."""
        size = sum(n for n, _ in self._metrics)
        epoch = {"loss": torch.stack(self._losses).mean().item()}
        for name in self._metrics[0][1]:
            epoch[name] = sum(n * metrics[name] for n, metrics in self._metrics) / size
        self._losses, self._metrics = [], []
        self.history.append(epoch)
        if self.monitor not in epoch:
            raise ValueError(f"monitor must be one of {', '.join(epoch)}; got {self.monitor!r}.")
        if self.best_epoch is None or epoch[self.monitor] < self.history[self.best_epoch][self.monitor]:
            self.best_epoch = len(self.history) - 1
            self._best_state = copy.deepcopy(self.model.state_dict())

    @final
    def on_fit_end(self) -> None:
        """Put the chosen weights back."""
        if self._best_state:
            self.model.load_state_dict(self._best_state)
        self.model.eval()

    def _swap(self) -> None:
        """Exchange the weights and their average, in place."""
        for weight, average in zip(self.model.parameters(), self._average, strict=False):
            weight.data, average.data = average.data, weight.data

    @final
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; the learning rate follows half a cosine over all steps."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    task: AbstractTask, data: pl.LightningDataModule, *, epochs: int, progress: bool = True, label: str = "training"
) -> None:
    """Train in this process on the CPU, with one bar over all epochs, no files and no chatter.

    Args:
        task: the model, its loss and its metrics; trained in place.
        data: its training and validation loaders.
        epochs: passes over the training data, at least 1.
        progress: show the bar, on stderr.
        label: stands before the bar.

    Raises:
        ValueError: `epochs` is below 1.
        KeyboardInterrupt: the user stopped it (Lightning alone would exit the interpreter).
    """
    if epochs < 1:
        raise ValueError(f"fit needs epochs >= 1; got epochs={epochs}.")
    with (
        quiet(),
        tqdm(total=epochs, desc=label, unit="epoch", file=sys.stderr, mininterval=0.2, disable=not progress) as bar,
    ):
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            callbacks=[_Advance(task, bar)],
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(task, datamodule=data)
        except SystemExit:
            if not trainer.interrupted:
                raise
            raise KeyboardInterrupt from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)  # after an interrupt Lightning leaves it ignored


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks on hardware, loader processes and missing loggers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside PyTorch's operations: with tensors of a few kilobytes more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Advance(pl.Callback):
    """Moves the bar at the end of every epoch, and shows the metric that chooses the epoch."""

    def __init__(self, task: AbstractTask, bar: tqdm) -> None:
        self._task = task
        self._bar = bar

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        monitor, last = self._task.monitor, self._task.history[-1]
        self._bar.set_postfix_str(f"{monitor} {last[monitor]:.4f}", refresh=False)
        self._bar.update()
