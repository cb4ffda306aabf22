"""What the trainings say together: means over the seeds, and each mode against the exact gradient, seed by seed."""

import statistics
from collections.abc import Mapping
from typing import Any

from implicit_l2o.applications.images.backward_comparison.modes import REFERENCE
from implicit_l2o.applications.images.backward_comparison.training import seconds
from implicit_l2o.report import interval

Runs = Mapping[str, Mapping[str, Mapping[str, Any]]]  # mode, seed


def summarize(runs: Runs) -> dict[str, dict[str, Any]]:
    """A row for every mode.

    Args:
        runs: by mode and seed, as `train` returns them.

    Returns:
        By mode: `test_accuracy`, its mean and the half-width of its 95 % interval over the seeds; `minus_implicit`, the
        same of the difference to the exact gradient with the same seed, and `closed`, whether that interval contains
        zero (each None where there is nothing to compare, or one seed alone); medians over all epochs of the
        processor `seconds` of an epoch, of its `forward` and `backward` part, of `peak_bytes` and of the solver's `steps`;
        `latent_cosine`, its median and its least value.

    Example:
        >>> from implicit_l2o.applications.images.backward_comparison.summary import summarize
        >>> summarize({})
        {}
    """
    return {mode: _row(mode, by_seed, runs) for mode, by_seed in runs.items() if by_seed}


def _row(mode: str, by_seed: Mapping[str, Mapping[str, Any]], runs: Runs) -> dict[str, Any]:
    epochs = [record for run in by_seed.values() for record in run["epochs"]]
    cosines = [record["latent_cosine"] for record in epochs if record["latent_cosine"] is not None]
    slopes = [record["slope"] for record in epochs if record["slope"] is not None]
    adjoint = [record["adjoint_steps"] for record in epochs if record["adjoint_steps"] is not None]
    return {
        "seeds": len(by_seed),
        "test_accuracy": _interval([run["test_accuracy"] for run in by_seed.values()]),
        "minus_implicit": _difference(mode, by_seed, runs),
        "seconds": statistics.median(map(seconds, epochs)),
        "forward": statistics.median(record["forward_processor"] for record in epochs),
        "backward": statistics.median(record["backward_processor"] for record in epochs),
        "peak_bytes": statistics.median(record["peak_bytes"] for record in epochs),
        "steps": statistics.median(record["steps"] for record in epochs),
        "adjoint_steps": statistics.median(adjoint) if adjoint else None,
        "unsolved": max(record["unsolved"] for record in epochs),
        "slope": statistics.median(slopes) if slopes else None,
        "latent_cosine": {"median": statistics.median(cosines), "least": min(cosines)} if cosines else None,
    }


def _interval(values: list[float]) -> dict[str, Any]:
    mean, half = interval(values)
    return {"mean": mean, "half": half}


def _difference(mode: str, by_seed: Mapping[str, Mapping[str, Any]], runs: Runs) -> dict[str, Any] | None:
    """Paired: the seeds that both have."""
    reference = runs.get(REFERENCE, {})
    both = [seed for seed in by_seed if seed in reference]
    if mode == REFERENCE or not both:
        return None
    found = _interval([by_seed[seed]["test_accuracy"] - reference[seed]["test_accuracy"] for seed in both])
    half = found["half"]
    return {**found, "seeds": len(both), "contains_zero": None if half is None else abs(found["mean"]) <= half}
