"""The files of a finished or interrupted run, from what was measured."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.report.svg import FOREGROUND, save_svg
from implicit_l2o.training import AbstractTask, Samples, write_arrays

# Texts and axes of a task's figures, which then follow the page's colours.
_STYLE = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), FOREGROUND)
_STYLE |= {"axes.titlecolor": FOREGROUND, "axes.facecolor": "none", "legend.facecolor": "none"}
_MOST_INPUTS = 20_000_000  # numbers: larger inputs are not copied beside the predictions


def solver_numbers(samples: Samples) -> dict[str, float] | None:
    """How the test inferences were solved."""
    if samples.status is None or samples.residual is None:
        return None
    finite = samples.residual[torch.isfinite(samples.residual)]
    numbers = {
        "converged": float((samples.status == il2o.Status.CONVERGED).double().mean()),
        "residual_max": float(finite.max()) if len(finite) else None,
    }
    if samples.steps is not None:
        numbers |= {"steps_mean": float(samples.steps.double().mean()), "steps_max": int(samples.steps.max())}
    return numbers


def certificate_counts(samples: Samples) -> dict[str, dict[str, int]]:
    """How many test samples got each label, by property."""
    return {
        name: {label.name: int((column == label).sum()) for label in il2o.Label}
        for name, column in zip(samples.names, samples.labels.unbind(1), strict=True)
    }


def certificate_record(task: AbstractTask, samples: Samples) -> dict[str, Any]:
    """The content of `certificates.json`."""
    certificates = task.all_certificates()
    labels = {name: _names(column) for name, column in zip(samples.names, samples.labels.unbind(1), strict=True)}
    return {
        "rules": {certificate.name: _plain(certificate.rule.state()) for certificate in certificates},
        "limits": {c.name: [_plain(c.rule.pass_limit), _plain(c.rule.warn_limit)] for c in certificates},
        "samples": {
            "status": None if samples.status is None else [il2o.Status(int(s)).name for s in samples.status],
            "converged": None if samples.status is None else (samples.status == il2o.Status.CONVERGED).tolist(),
            "residual": _list(samples.residual),
            "steps": _list(samples.steps),
            "error": _list(samples.error),
            "values": {
                name: _list(column) for name, column in zip(samples.names, samples.values.unbind(1), strict=True)
            },
            "labels": labels,
            "worst": _names(samples.worst),
        },
    }


def write_predictions(folder: RunFolder, samples: Samples) -> None:
    """The arrays behind the report."""
    arrays = {name: getattr(samples, name) for name in ("answer", "values", "labels", "worst")}
    arrays |= {name: getattr(samples, name) for name in ("status", "residual", "steps", "error")}
    if len(samples.batch) > 1:
        arrays["target"] = samples.batch[1]
    if samples.batch and samples.batch[0].numel() <= _MOST_INPUTS:
        arrays["inputs"] = samples.batch[0]
    write_arrays(folder.predictions, {name: value.numpy() for name, value in arrays.items() if value is not None})


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
                "error": _plain(float(samples.error[index])),
                "figure": str(file.relative_to(folder.path)),
            }
        )
    return examples


def draw_figures(folder: RunFolder, figures: Mapping[str, tuple[Figure, str]]) -> list[dict[str, str]]:
    """The task's own figures."""
    written = []
    for name, (figure, caption) in figures.items():
        file = folder.figures / f"{_file_name(name)}.svg"
        save_svg(figure, file, label=caption)
        written.append({"file": str(file.relative_to(folder.path)), "title": name, "caption": caption})
    return written


def drawing() -> AbstractContextManager[None]:
    """Figures drawn inside follow the colours of the report."""
    return matplotlib.rc_context(_STYLE)


def metric_directions(task: AbstractTask) -> dict[str, dict[str, str]]:
    """Name and better direction of every metric."""
    return {
        name: {"label": name, "better": "higher" if metric.higher_is_better else "lower"}
        for name, metric in task.metrics().items()
    }


def plain(values: Any) -> Any:
    """Numbers, lists and dictionaries as JSON takes them: what is not finite becomes None."""
    return _plain(values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (Tensor, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def _list(column: Tensor | None) -> list[Any] | None:
    return None if column is None else _plain(column)


def _names(labels: Tensor) -> list[str]:
    return [il2o.Label(int(label)).name for label in labels]


def _file_name(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title.lower()).strip("_") or "figure"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
