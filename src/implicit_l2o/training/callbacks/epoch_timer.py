"""The wall time of each epoch's training, without its validation."""

import time
from typing import Any

import lightning.pytorch as pl
import numpy as np


class EpochTimer(pl.Callback):
    """Measures how long each epoch trains.

    Attributes:
        seconds: one entry an epoch, also of those before a resume.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started: float | None = None

    @property
    def median(self) -> float | None:
        """The median epoch, which a passing load on the machine does not move; None before the first."""
        return float(np.median(self.seconds)) if self.seconds else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it: Lightning validates inside the training epoch."""
        self._stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it, in an epoch without validation."""
        self._stop()

    def _stop(self) -> None:
        if self._started is not None:
            self.seconds.append(time.perf_counter() - self._started)
            self._started = None

    def state_dict(self) -> dict[str, Any]:
        """The epochs so far."""
        return {"seconds": list(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after a resume."""
        self.seconds = list(state_dict["seconds"])
