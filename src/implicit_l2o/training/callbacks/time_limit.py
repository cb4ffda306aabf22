"""A training of so many seconds: what is fair to methods whose steps cost different amounts."""

import math
import time
from typing import Any, final

import lightning.pytorch as pl


@final
class TimeLimit(pl.Callback):
    """Ends a training, in the middle of an epoch if need be, when its steps have taken so many seconds.

    Validation, loading and checkpoints do not count. How many steps that gives depends on the machine, and so, in the last
    digits, do the weights.

    Args:
        seconds: of training steps.
        anneal: let the learning rate fall to zero along a half cosine of the time, which the schedules by steps cannot do,
            for the number of steps is not known. Needs `optimization.schedule: constant` without warm-up.
        processor: count the processor's time of this process, not that of the clock on the wall: fair where other programs
            take part of the machine. For a CPU and one thread; several threads' times add up.

    Attributes:
        steps: taken so far, also before a resume.
        left: seconds.

    Raises:
        ValueError: `seconds` is not positive; or, when the training begins, `anneal` beside another schedule.

    Example:
        >>> from implicit_l2o.training.callbacks import TimeLimit
        >>> TimeLimit(60.0).left
        60.0
    """

    def __init__(self, seconds: float, *, anneal: bool = False, processor: bool = False) -> None:
        if not 0 < seconds < math.inf:
            raise ValueError(f"TimeLimit needs finite seconds > 0; got seconds={seconds}.")
        self.seconds, self.left = seconds, seconds
        self.anneal, self.processor = anneal, processor
        self.steps = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse two schedules at once."""
        optimization: Any = getattr(pl_module, "optimization", None)
        if (
            self.anneal
            and optimization is not None
            and (optimization.schedule, optimization.warmup_steps) != ("constant", 0)
        ):
            raise ValueError(
                "TimeLimit(anneal=True) sets the learning rate itself: it needs schedule 'constant' and warmup_steps 0; got "
                f"schedule {optimization.schedule!r}, warmup_steps {optimization.warmup_steps}."
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, and set the learning rate."""
        if self.anneal:
            factor = 0.5 * (1 - math.cos(math.pi * max(self.left, 0.0) / self.seconds))
            for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
                group["lr"] = group["initial_lr"] * factor
        self._began = self._now()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop it, and the training where the time is up."""
        self.left -= self._now() - self._began
        self.steps += 1
        if self.left <= 0:
            trainer.should_stop = True

    def _now(self) -> float:
        return time.process_time() if self.processor else time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Time and steps so far."""
        return {"left": self.left, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after a resume."""
        self.left, self.steps = state_dict["left"], state_dict["steps"]
