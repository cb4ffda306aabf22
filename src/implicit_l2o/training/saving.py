"""When checkpoints are written: at every epoch's end, before the first step, and where a run is interrupted."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, final, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from implicit_l2o.training.board import BoardLogger
from implicit_l2o.training.checkpoint import CheckpointError
from implicit_l2o.training.logger import MetricsLogger
from implicit_l2o.training.random_state import of_all_processes
from implicit_l2o.training.resuming import add_means, begin_next_epoch, logged_step, means_so_far, write_metrics


@runtime_checkable
class Resumable(Protocol):
    """A loader that knows its position within the epoch."""

    def state_dict(self) -> Mapping[str, Any]:
        """The position."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> None:
        """Go on from there."""
        ...


@final
class Checkpoints(ModelCheckpoint):
    """Keeps `last.ckpt` and `best.ckpt` such that a run ended at any moment can be resumed as if it had not been.

    `last.ckpt` is written before the first step and at the end of every epoch, whether or not the epoch was the best;
    `best.ckpt` where the monitored metric is the best so far. The metrics of the epoch are on the disk before either.

    Ctrl-C and SIGTERM end the run after the step that is under way, and write `last.ckpt` there if the training loader knows
    its position (`Resumable`, as the loaders of `AbstractData`), else the one of the last epoch stays. In the epoch's last
    step and in the validation they end the run after the epoch. A second Ctrl-C ends it at once, with the checkpoint that is
    there. Then `trainer.fit` leaves by `SystemExit`, as Lightning does, and `trainer.interrupted` is true.

    Lightning puts this callback behind the others, so what they keep is up to date. A change that a task makes in its own
    `on_train_batch_end` comes too late for a checkpoint inside an epoch.

    Args:
        folder: where the checkpoints lie.
        monitor: the logged metric that chooses the best.
        mode: `"min"` if smaller is better, `"max"` if larger is.
        minutes: also write `last.ckpt` inside an epoch when so much time has passed, for long epochs; needs such a loader.
        overwrite: begin a new run in a folder that has a `last.ckpt`.

    Raises:
        ValueError: `minutes` is not positive.
        CheckpointError: the folder has the checkpoints of another run and this one was not told to resume it.

    Example:
        >>> import lightning.pytorch as pl
        >>> from implicit_l2o.training import AtomicCheckpointIO, Checkpoints, RandomState
        >>> trainer = pl.Trainer(
        ...     callbacks=[RandomState(), Checkpoints("runs/example/checkpoints")],
        ...     plugins=[AtomicCheckpointIO()], accelerator="cpu", logger=False,
        ... )
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        minutes: float | None = None,
        overwrite: bool = False,
    ) -> None:
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes must be positive; got {minutes}.")
        super().__init__(
            dirpath=os.fspath(folder),
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        if (best := Path(folder) / "best.ckpt").is_file():
            self.best_model_path = os.fspath(best.resolve())  # for `ckpt_path="best"` in a process that did not train
        self.minutes = minutes
        self.overwrite = overwrite
        self._asked = False  # to end the run, by a signal
        self._stop = False  # agreed by all processes, and done before the next step
        self._saved_at = 0.0
        self._means: Mapping[str, Any] = {}  # of the interrupted epoch, to be added to its rest
        self._missing: dict[str, float] = {}  # those that its rest does not log
        self._previous: Any = None  # what SIGINT did before

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning warns of a folder that is not empty; here that is a resumed run, or refused below."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop what was logged beyond the checkpoint, or save the beginning; from here on signals wait for a step's end."""
        super().on_train_start(trainer, pl_module)
        self._asked = self._stop = False
        if _is_trial(trainer):
            return
        begin_next_epoch(trainer)
        fresh = trainer.ckpt_path is None and trainer.global_step == 0
        last = os.path.join(str(self.dirpath), "last.ckpt")
        if fresh and not self.overwrite and self.file_exists(last, trainer):
            raise CheckpointError(
                f"{self.dirpath} has the checkpoints of another run: resume it (--ckpt_path last), take another folder, "
                "or remove it."
            )
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLogger | BoardLogger):
                logger.rewind(trainer.global_step)
        if fresh:
            self.best_model_path = ""
            self._save(trainer)
        elif any(c.stopped_epoch or c.wait_count >= c.patience for c in _early_stopping(trainer)):
            trainer.should_stop = True  # the run had ended; Lightning forgets that
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The end of an interrupted run: the last step is saved and logged."""
        if self._stop:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save inside the epoch where that was asked for and is possible."""
        if self._means:
            self._missing = add_means(trainer, self._means)
            self._means = {}
        if _is_trial(trainer):
            return
        late = self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes
        asked = self._asked or trainer.received_sigterm
        if not self._agreed(trainer, asked or late):
            return
        asked = self._agreed(trainer, asked)
        if trainer.is_last_batch or not isinstance(trainer.train_dataloader, Resumable):
            self._stop = asked  # the epoch's end comes, or the former one is all there is
        elif (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not _validates_now(trainer, batch_idx):
            self._save(trainer)
            self._stop = asked

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end of a run that was interrupted at the end of an epoch."""
        if self._stop:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, first as the best one if it is."""
        if _is_trial(trainer):
            return
        if self._missing:
            for logger in trainer.loggers:
                logger.log_metrics(self._missing, step=logged_step(trainer))
            self._missing = {}
        candidates = self._monitor_candidates(trainer)
        validated = trainer.fit_loop.epoch_loop.val_loop._has_run
        if self.monitor not in candidates and validated:
            raise ValueError(f"monitor must be one of {', '.join(sorted(candidates))}; got {self.monitor!r}.")
        if self.monitor in candidates:
            write_metrics(trainer)
            self._save_topk_checkpoint(trainer, candidates)
        self._save(trainer)
        self._stop = self._agreed(trainer, self._asked or trainer.received_sigterm)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: the epoch's end follows."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All is saved; other callbacks may have changed the weights by now."""
        self._release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Whatever state the run is in, it is not one to save."""
        self._release()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Inside an epoch, add the sums behind its means so far."""
        progress: Any = trainer.fit_loop.epoch_progress.current
        if trainer.state.fn == TrainerFn.FITTING and progress.started > progress.processed:
            checkpoint["means"] = of_all_processes(trainer, means_so_far(trainer, self._missing))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take this process's sums."""
        means = checkpoint.get("means", [])
        self._means = means[trainer.global_rank] if len(means) == trainer.world_size else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Which epoch was the best; its file is the one in this folder, wherever the folder was when it was saved."""
        self.current_score = state_dict["current_score"]

        def here(path: str) -> str:
            return os.path.join(str(self.dirpath), os.path.basename(path)) if path else ""

        best = here(state_dict["best_model_path"])
        if not Path(best).is_file():
            return  # the checkpoint was taken to another folder alone: the next epoch is the best so far
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": best,
                "kth_best_model_path": here(state_dict["kth_best_model_path"]),
                "last_model_path": here(state_dict["last_model_path"]),
                "best_k_models": {here(path): score for path, score in state_dict["best_k_models"].items()},
            }
        )

    def _save(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`, after the metrics up to it."""
        write_metrics(trainer)
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._saved_at = time.monotonic()

    def _agreed(self, trainer: pl.Trainer, decision: bool) -> bool:
        """Whether any process says so."""
        return decision if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(decision, all=False)

    def _interrupt(self, signum: int, frame: Any) -> None:
        """The first time, ask for the end; the second time, end."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # Not print: the signal may come in the middle of another one.
        os.write(2, b"\nInterrupted: the run ends after this step and saves it. Ctrl-C again ends it at once.\n")

    def _release(self) -> None:
        if self._previous is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._previous)
        self._previous = None


def _is_trial(trainer: Any) -> bool:
    """Whether nothing is to be saved."""
    return bool(trainer.fast_dev_run)


def _early_stopping(trainer: pl.Trainer) -> list[Any]:
    return list(trainer.early_stopping_callbacks) if trainer.ckpt_path is not None else []


def _validates_now(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a validation inside the epoch follows this step; a run resumed here would leave it out."""
    every = trainer.val_check_batch
    index = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return isinstance(every, int) and (index + 1) % every == 0
