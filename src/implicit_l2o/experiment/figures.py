"""The figures of a run: examples drawn by the task, and the task's own."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.experiment.results import plain
from implicit_l2o.report.svg import FOREGROUND, save_svg
from implicit_l2o.training import AbstractTask, Samples

# Texts and axes of a task's figures, which then follow the page's colours.
_TEXTS = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
_STYLE: dict[Any, Any] = dict.fromkeys(_TEXTS, FOREGROUND) | {"axes.facecolor": "none", "legend.facecolor": "none"}


def draw_examples(folder: RunFolder, task: AbstractTask, samples: Samples) -> list[dict[str, Any]]:
    """The samples with the smallest, the median and the largest error, drawn by the task."""
    if samples.error is None or len(samples.error) == 0:
        return []
    order = samples.error.nan_to_num(nan=math.inf).argsort(stable=True).tolist()
    chosen = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    examples = []
    for kind, index in chosen.items():
        sample: dict[str, Tensor] = {"answer": samples.answer[index]}
        for position, name in enumerate(("inputs", "target")):
            if position < len(samples.batch):
                sample[name] = samples.batch[position][index]
        figure = _figure(4.6, 3.0)
        task.draw(figure, sample)
        file = folder.figures / f"example_{kind}.svg"
        save_svg(figure, file, label=f"sample {index}")
        examples.append(
            {
                "kind": kind,
                "index": index,
                "error": plain(float(samples.error[index])),
                "figure": str(file.relative_to(folder.path)),
            }
        )
    return examples


def draw_figures(folder: RunFolder, figures: Mapping[str, tuple[Figure, str]]) -> list[dict[str, str]]:
    """The task's own figures."""
    written: list[dict[str, str]] = []
    for name, (figure, caption) in figures.items():
        file = folder.figures / f"{_file_name(name)}.svg"
        if file.is_file():  # two titles that differ in signs alone
            file = file.with_stem(f"{file.stem}_{len(written) + 1}")
        save_svg(figure, file, label=caption)
        written.append({"file": str(file.relative_to(folder.path)), "title": name, "caption": caption})
    return written


def drawing() -> AbstractContextManager[None]:
    """Figures drawn inside follow the colours of the report."""
    return matplotlib.rc_context(_STYLE)


def _file_name(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title.lower()).strip("_") or "figure"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
