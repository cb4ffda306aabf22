"""A progress bar over the whole training, with the solver beside the loss."""

import math
import sys
import time
from typing import Any, final

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


@final
class SolverProgressBar(TQDMProgressBar):
    """One bar over all epochs, on stderr: epoch, loss, iterations and residual of the last solve, last validation.

    It is drawn, and the device waited for, every `interval` seconds at most. Where stderr is no terminal there is one
    line an epoch instead. Validation inside the training has no bar of its own; `test` and `predict` have Lightning's.

    Args:
        interval: seconds.

    Raises:
        ValueError: `interval` is negative.

    Example:
        >>> from implicit_l2o.training.callbacks import SolverProgressBar
        >>> SolverProgressBar(interval=1.0).interval
        1.0
    """

    def __init__(self, interval: float = 0.2) -> None:
        if not interval >= 0:
            raise ValueError(f"SolverProgressBar needs interval >= 0 seconds; got interval={interval}.")
        super().__init__()
        self.interval = interval
        self._drawn = -math.inf
        self._began = 0.0
        self._validated = ""

    def init_train_tqdm(self) -> Tqdm:
        """A bar over the batches of all epochs."""
        return self._bar(total=self._total(), initial=self._done(), smoothing=0.1)

    def init_validation_tqdm(self) -> Tqdm:
        """None inside a training, whose own bar goes on."""
        return self._bar(desc=self.validation_description, hidden=self.trainer.state.fn == "fit")

    def init_sanity_tqdm(self) -> Tqdm:
        """None: it takes a moment."""
        return self._bar(hidden=True)

    def init_test_tqdm(self) -> Tqdm:
        """A bar over the test batches."""
        return self._bar(desc=self.test_description)

    def init_predict_tqdm(self) -> Tqdm:
        """A bar over the batches to predict."""
        return self._bar(desc=self.predict_description)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Say which epoch it is."""
        self._began = time.perf_counter()
        self.train_progress_bar.set_description(self._epoch(), refresh=False)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw, unless that was done just now; only then are values taken from the device."""
        bar, now = self.train_progress_bar, time.perf_counter()
        if bar.disable or (now - self._drawn < self.interval and batch_idx + 1 != self.total_train_batches):
            return
        self._drawn = now
        bar.n = self._done()
        loss = [f"loss {float(outputs['loss']):.4g}"] if isinstance(outputs, dict) and "loss" in outputs else []
        bar.set_postfix_str(
            ", ".join([*loss, *self._solve(pl_module), *filter(None, [self._validated])]), refresh=False
        )
        bar.refresh()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the line, so that what is said next has its own."""
        if self._train_progress_bar is not None:
            self.train_progress_bar.close()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the metric that chooses the epoch, for the bar."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()
        monitor = getattr(pl_module, "monitor", "val/loss")
        if not trainer.sanity_checking and monitor in trainer.callback_metrics:
            self._validated = f"{monitor} {float(trainer.callback_metrics[monitor]):.4g}"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where there is no bar, a line."""
        if self.is_disabled or not self.train_progress_bar.disable:
            return
        logged = trainer.callback_metrics
        losses = [f"{name} {float(logged[name]):.4g}" for name in ("train/loss",) if name in logged]
        seconds = [f"{time.perf_counter() - self._began:.1f} s"]
        parts = [*losses, *filter(None, [self._validated]), *self._solve(pl_module), *seconds]
        print(f"{self._epoch()}: {', '.join(parts)}", file=sys.stderr, flush=True)

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Above the bar, or plainly where there is none."""
        if self.is_enabled and not _is_terminal():
            print(*args, sep=sep, **kwargs)
        else:
            super().print(*args, sep=sep, **kwargs)

    def _bar(self, *, hidden: bool = False, **options: Any) -> Tqdm:
        return Tqdm(
            disable=hidden or self.is_disabled or not _is_terminal(),
            leave=True,
            dynamic_ncols=True,
            file=sys.stderr,
            bar_format=self.BAR_FORMAT,
            **options,
        )

    def _epoch(self) -> str:
        last = self.trainer.max_epochs
        return f"epoch {self.trainer.current_epoch + 1}" + (f"/{last}" if last is not None and last > 0 else "")

    def _done(self) -> int:
        """Batches so far, also those before a resume."""
        return self.trainer.fit_loop.total_batch_idx + 1

    def _total(self) -> int | None:
        """Batches of the whole training, None where that is not known."""
        trainer = self.trainer
        epochs = math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs)  # pyright: ignore[reportArgumentType]
        steps = math.inf if trainer.max_steps == -1 else trainer.max_steps * trainer.accumulate_grad_batches
        total = min(epochs * self.total_train_batches, steps)
        return int(total) if math.isfinite(total) else None

    @staticmethod
    def _solve(task: Any) -> list[str]:
        solve = getattr(task, "solve", None)
        if solve is None or not len(solve.status):
            return []
        iterations = [] if solve.steps is None else [f"{float(solve.steps.float().mean()):.1f} iterations"]
        return [*iterations, f"residual {float(solve.residual.max()):.1e}"]


def _is_terminal() -> bool:
    return sys.stderr.isatty()
