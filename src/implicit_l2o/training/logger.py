"""The metrics of a run as one CSV file that outlives kills and is continued by a resumed run."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from implicit_l2o.training.files import FileError, reason, replacing

FIRST = ("step", "epoch")  # the columns that are always there


@final
class MetricsLogger(Logger):
    """Writes `metrics.csv`: a row a logged step, a column a metric, an empty cell where nothing was logged.

    Steps count from 0, as Lightning logs them: the row of step `s` is written when `s + 1` steps are done. What is logged
    at one step is one row. A resumed run goes on in the same file: `Checkpoints` calls `rewind`, which drops the rows beyond
    the checkpoint. A line that a kill cut short is dropped as well.

    Args:
        folder: where the file lies; made where it is missing.
        flush_every: rows that are kept before they are written. A checkpoint and the end of the run write all.

    Raises:
        ValueError: `flush_every` is below 1.
        FileError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> from implicit_l2o.training import MetricsLogger
        >>> folder = tempfile.TemporaryDirectory()
        >>> logger = MetricsLogger(folder.name)
        >>> logger.log_metrics({"epoch": 0, "train/loss": 0.5}, step=9)
        >>> logger.log_metrics({"val/loss": 0.25}, step=9)
        >>> logger.flush()
        >>> print((pathlib.Path(folder.name) / "metrics.csv").read_text().strip())
        step,epoch,train/loss,val/loss
        9,0,0.5,0.25
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str], *, flush_every: int = 20) -> None:
        super().__init__()
        if flush_every < 1:
            raise ValueError(f"flush_every must be at least 1; got {flush_every}.")
        self.folder = Path(folder)
        self.flush_every = flush_every
        self._columns: list[str] = []  # of the file; none until it has been looked at
        self._pending: list[dict[str, Any]] = []  # the last row may still grow
        self._end = 0  # where in the file the last row begins that is written but may still grow
        self._written: dict[str, Any] | None = None  # that row

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "metrics.csv"

    @property
    def name(self) -> str:
        """Without a name the folder itself is taken, not one in it."""
        return ""

    @property
    def version(self) -> str:
        """One run a folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def root_dir(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def log_dir(self) -> str:
        """The folder."""
        return str(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """They stand in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add to the row of a step; without a step, to the last one."""
        values: dict[str, Any] = {k: v.item() if isinstance(v, Tensor) else v for k, v in metrics.items()}
        last = self._pending[-1] if self._pending else self._written
        if step is None:
            step = int(values.get("step", last["step"] if last else 0))
        if last is None or last["step"] != step:
            last = dict[str, Any](step=step)
            self._pending.append(last)
        elif last is self._written and any(k not in last or last[k] != v for k, v in values.items()):
            last = dict(last)  # write it again
            self._pending.append(last)
        # Lightning gives the next epoch with what is logged after the last one.
        last.update({k: v for k, v in values.items() if k != "epoch" or k not in last})
        last["step"] = step

    @rank_zero_only
    def save(self) -> None:
        """Write when enough rows wait; Lightning calls this after every logging."""
        if len(self._pending) > self.flush_every:
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Write all there is, onto the disk."""
        if not self._pending:
            return
        if not self._columns:
            self._open()
        new = dict.fromkeys(k for row in self._pending for k in row if k not in self._columns)
        if new:
            self._widen(list(new))
        *closed, last = [_line([row.get(k, "") for k in self._columns]) for row in self._pending]
        grown = self._written is not None and self._pending[0]["step"] == self._written["step"]
        try:
            with self.path.open("r+b") as file:
                start = self._end if grown else file.seek(0, os.SEEK_END)
                file.seek(start)
                file.write(b"".join([*closed, last]))
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"Cannot write {self.path}: {reason(error)}. The rows up to here are there.") from error
        self._end = start + sum(map(len, closed))
        self._written = self._pending[-1]
        self._pending = []

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Go on from a checkpoint after `step` steps, with 0 from the start: keep the rows of the steps before it."""
        self._pending, self._written, self._end = [], None, 0
        self._columns, rows = _read(self.path)
        kept = [row for row in rows if int(row[0]) < step] if step > 0 else []
        if step == 0:
            self._columns = []
        self._columns = self._columns or list(FIRST)
        self._replace(kept)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all there is; after a failure only where that is possible, for its own error is the one to show."""
        if status == "success":
            self.flush()
        else:
            with suppress(OSError):
                self.flush()

    def _open(self) -> None:
        """Take up the file that is there, or begin one."""
        self._columns, rows = _read(self.path)
        self._columns = self._columns or list(FIRST)
        self._replace(rows)

    def _widen(self, new: list[str]) -> None:
        """Add columns, which stay empty in the rows that are there."""
        former, rows = _read(self.path)
        self._columns = [*former, *new]
        self._replace([[*row, *[""] * len(new)] for row in rows])
        if self._written is not None:  # its line is a little longer now, and it is still the last
            self._end = self.path.stat().st_size - len(_line([*rows[-1], *[""] * len(new)]))

    def _replace(self, rows: list[list[str]]) -> None:
        with replacing(self.path) as file:
            file.write(b"".join(map(_line, [self._columns, *rows])))


def _line(cells: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """The columns and the complete rows of a file; a line without its end was cut short, and so was a short one."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise FileError(f"Cannot read {path}: {reason(error)}.") from error
    complete = text[: text.rfind("\n") + 1]
    columns, *rows = list(csv.reader(io.StringIO(complete))) or [[]]
    if columns[:1] != ["step"]:
        return [], []
    return columns, [row for row in rows if len(row) == len(columns) and row[0].lstrip("-").isdigit()]
