"""Statistics over seeds, the description of the machine, and files that are never half written."""

import json
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import scipy.stats
import torch


class Interval(NamedTuple):
    """A mean over seeds and the half-width of its 95 % interval.

    Attributes:
        mean: the arithmetic mean.
        half_width: None for one seed, which says nothing about the spread.
    """

    mean: float
    half_width: float | None

    def __str__(self) -> str:
        if self.half_width is None:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {self.half_width:.4f}"


def interval(values: Sequence[float]) -> Interval:
    """Mean and half-width of the 95 % interval of independent, normal values (Student's t).

    Raises:
        ValueError: there is no value.

    Example:
        >>> from implicit_l2o.report import interval
        >>> print(interval([1.0, 2.0, 3.0]))
        2.0000 ± 2.4841
    """
    if len(values) == 0:
        raise ValueError("interval needs at least one value; got none.")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval(mean, None)
    quantile = float(scipy.stats.t.ppf(0.975, len(values) - 1))
    return Interval(mean, quantile * statistics.stdev(values) / math.sqrt(len(values)))


def machine() -> dict[str, Any]:
    """What a measured time depends on, and the versions that a number was computed with."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),  # mean number of busy processes: above the cores, times are too long
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all: under another name first, then renamed. Makes its folder.

    Raises:
        ValueError: the content has a NaN or an infinity, which JSON does not know.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) whole or not at all: under another name first, then renamed. Makes its folder.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from implicit_l2o.report import write_text
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "new" / "note.txt", "whole")
        ...     print((Path(folder) / "new" / "note.txt").read_text())
        whole
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)
