"""The numbers and arrays of a run's files, from what was measured."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.training import AbstractTask, Samples, write_arrays

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
        "rules": {certificate.name: plain(certificate.rule.state()) for certificate in certificates},
        "limits": {c.name: [plain(c.rule.pass_limit), plain(c.rule.warn_limit)] for c in certificates},
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


def write_baselines(folder: RunFolder, answers: Mapping[str, Tensor]) -> None:
    """The answers of the baselines to the test, by name, in the order of `predictions.npz`."""
    write_arrays(folder.baselines, {name: value.numpy() for name, value in answers.items()})


def metric_directions(task: AbstractTask) -> dict[str, dict[str, str]]:
    """Name and better direction of every metric."""
    return {
        name: {"label": name, "better": "higher" if metric.higher_is_better else "lower"}
        for name, metric in task.metrics().items()
    }


def plain(value: Any) -> Any:
    """Numbers, lists and dictionaries as JSON takes them: what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Tensor, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def _list(column: Tensor | None) -> list[Any] | None:
    return None if column is None else plain(column)


def _names(labels: Tensor) -> list[str]:
    return [il2o.Label(int(label)).name for label in labels]
