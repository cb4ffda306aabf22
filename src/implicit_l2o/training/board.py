"""TensorBoard's event files in the run folder, continued by a resumed run."""

import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, final

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger

from implicit_l2o.training.files import FileError, reason


@final
class BoardLogger(TensorBoardLogger):
    """Writes the metrics for TensorBoard (`tensorboard --logdir FOLDER`), besides `MetricsLogger`.

    The events go straight into the folder. A resumed run adds a file that tells TensorBoard to forget what was logged beyond
    the checkpoint; `Checkpoints` calls `rewind`, and `flush` before it saves. Hyperparameters stand in `config.yaml`.

    Args:
        folder: where the events go; made where it is missing.

    Example:
        >>> import pathlib, tempfile
        >>> from implicit_l2o.training import BoardLogger
        >>> folder = tempfile.TemporaryDirectory()
        >>> logger = BoardLogger(folder.name)
        >>> logger.log_metrics({"train/loss": 0.5}, step=9)
        >>> logger.finalize("success")
        >>> len(list(pathlib.Path(folder.name).glob("events.out.tfevents.*")))
        1
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(save_dir=os.fspath(folder), name="", version="", default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | Namespace,
        metrics: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Nothing."""

    @property
    def experiment(self) -> Any:
        """TensorBoard's `SummaryWriter`, for figures and histograms."""
        with self._named_errors():
            return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars.

        Raises:
            FileError: the events cannot be written.
        """
        with self._named_errors():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Nothing: Lightning calls it after every logging, and to wait for the disk each time would cost."""

    @rank_zero_only
    def flush(self) -> None:
        """Write all there is.

        Raises:
            FileError: the events cannot be written.
        """
        with self._named_errors():
            self.experiment.flush()

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Go on from a checkpoint after `step` steps: what was logged from there on is hidden."""
        if step > 0:
            self.experiment.close()
            self.experiment.purge_step = step  # taken up by the next file

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all there is; after a failure only where that is possible, for its own error is the one to show."""
        if self._experiment is None:
            return
        if status == "success":
            self.flush()
            self._experiment.close()
        else:
            with suppress(OSError):
                self._experiment.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """A full disk is met by another thread, and reported whenever the next event comes; Lightning wraps it once more."""
        try:
            yield
        except FileError:
            raise
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, FileError):
                raise cause from error
            if not isinstance(cause, OSError):
                raise
            raise FileError(f"Cannot write TensorBoard's events in {self.save_dir}: {reason(cause)}.") from error
