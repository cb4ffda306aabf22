"""Train a task in this process, without a run folder: for baselines, notebooks and scripts."""

import logging
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tqdm import tqdm

from implicit_l2o.training.callbacks.epoch_timer import EpochTimer
from implicit_l2o.training.callbacks.weight_average import WarmWeightAverage
from implicit_l2o.training.task import AbstractTask


@dataclass(frozen=True)
class Training:
    """What a training gave besides the weights.

    Attributes:
        history: one dictionary an epoch, by the logged names (`"train/loss"`, `"val/loss"`, ...).
        best_epoch: index into `history`; its weights were kept.
        seconds: wall time of each epoch's training, without validation.
    """

    history: list[dict[str, float]]
    best_epoch: int
    seconds: list[float]

    @property
    def seconds_per_epoch(self) -> float:
        """The median, which a passing load on the machine does not move."""
        return float(torch.tensor(self.seconds, dtype=torch.float64).median())


def fit(
    task: AbstractTask,
    data: pl.LightningDataModule,
    *,
    epochs: int,
    weight_average: float = 0.0,
    gradient_clip: float | None = None,
    accelerator: str = "cpu",
    callbacks: Sequence[pl.Callback] = (),
    progress: bool = True,
    label: str = "training",
) -> Training:
    """Train with one bar over all epochs and no chatter; keep the weights of the best epoch.

    The best epoch is the one with the smallest `task.monitor`. Afterwards the task is on the CPU and in evaluation mode.

    Args:
        task: trained in place.
        data: its training and validation loaders.
        epochs: passes over the training data, at least 1.
        weight_average: decay of the running average of the weights, a step; the average is validated and kept. 0 for none.
        gradient_clip: the largest norm of a step's gradient; a longer one is scaled down to it. None for any.
        accelerator: where it trains, as Lightning names it: `"cpu"`, `"gpu"`, or `"auto"` for a GPU where there is one.
        callbacks: more of Lightning's.
        progress: show the bar, on stderr.
        label: stands before the bar.

    Raises:
        ValueError: `epochs` is below 1.
        KeyboardInterrupt: the user stopped it (Lightning alone would exit the interpreter).
    """
    if epochs < 1:
        raise ValueError(f"fit needs epochs >= 1; got epochs={epochs}.")
    timer, history = EpochTimer(), _History(task.monitor)
    with (
        quiet(),
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=epochs, desc=label, unit="epoch", file=sys.stderr, mininterval=0.2, disable=not progress) as bar,
    ):
        best = ModelCheckpoint(folder, filename="best", monitor=task.monitor)  # whole: else it would miss the average
        average = [WarmWeightAverage(weight_average)] if weight_average else []
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=epochs,
            gradient_clip_val=gradient_clip,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            callbacks=[*average, timer, history, _Advance(task.monitor, bar), best, *callbacks],
        )
        with interruptible(trainer):
            trainer.fit(task, datamodule=data)
        checkpoint = torch.load(Path(best.best_model_path), map_location="cpu", weights_only=True)
        task.cpu().load_state_dict(checkpoint["state_dict"])
    task.eval()
    return Training(history=history.epochs, best_epoch=int(checkpoint["epoch"]), seconds=timer.seconds)


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Ctrl-C is a `KeyboardInterrupt` again: Lightning exits the interpreter and leaves the signal ignored."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks on hardware, loader processes and missing loggers."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
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


class _History(pl.Callback):
    """Writes down what each epoch logged."""

    def __init__(self, monitor: str) -> None:
        self.epochs: list[dict[str, float]] = []
        self._monitor = monitor

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self._monitor not in logged:
            raise ValueError(f"monitor must be one of {', '.join(logged)}; got {self._monitor!r}.")
        self.epochs.append(logged)


class _Advance(pl.Callback):
    """Moves the bar at the end of every epoch, and shows the metric that chooses the epoch."""

    def __init__(self, monitor: str, bar: tqdm) -> None:
        self._monitor = monitor
        self._bar = bar

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self._monitor)
        if value is not None:
            self._bar.set_postfix_str(f"{self._monitor} {float(value):.4f}", refresh=False)
        self._bar.update()
