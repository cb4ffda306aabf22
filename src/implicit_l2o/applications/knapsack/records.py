"""The decisions and records of `sizes` on file, and the table that is made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from implicit_l2o.applications.knapsack.problems import Problem


def save(target: Path, selections: Tensor, record: Mapping[str, Any]) -> None:
    """Selections as bits, and what is to be said of them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.npz")
    np.savez_compressed(part, selections=np.packbits(selections.numpy() > 0.5, axis=1), record=json.dumps(dict(record)))
    part.replace(target)  # whole or not at all


def load(target: Path, count: int) -> tuple[np.ndarray, dict[str, Any]]:
    """What `save` kept: 0/1 selections `(N, count)` and the record."""
    with np.load(target) as kept:
        return np.unpackbits(kept["selections"], axis=1, count=count), json.loads(str(kept["record"]))


def collect(
    folder: Path,
    seeds: Sequence[int],
    families: Mapping[int, tuple[float, Sequence[int]]],
    methods: Sequence[str],
) -> dict[str, Any]:
    """The regrets of everything on file, by degree and number of items; one value a seed.

    `regret` is over all test contexts, `published` over those of the published data set.

    Args:
        folder: of all runs.
        seeds: of the data.
        families: by degree the noise and the numbers of items.
        methods: names; each has the seeds that are on file for it.
    """
    found: dict[str, Any] = {}
    for degree, (noise, counts) in families.items():
        sizes = {}
        for count in counts:
            problems = [Problem(degree, noise, count, seed) for seed in seeds]
            if all((folder / problem.name / "untrained.npz").exists() for problem in problems):
                sizes[str(count)] = _methods(folder, problems, methods)
        found[f"degree_{degree}"] = {"noise": noise, "sizes": sizes}
    return found


def _methods(folder: Path, problems: Sequence[Problem], names: Sequence[str]) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    for name in names:
        present = [problem for problem in problems if (folder / problem.name / f"{name}.npz").exists()]
        if not present:
            continue
        rows = [_scores(folder / problem.name, name, problem) for problem in present]
        floors = [_scores(folder / problem.name, "floor", problem)["regret"] for problem in present]
        methods[name] = {
            "seeds": [problem.seed for problem in present],
            **{key: [row[key] for row in rows] for key in rows[0]},
            "excess": [row["regret"] - floor for row, floor in zip(rows, floors, strict=True)],
        }
    return methods


def _scores(folder: Path, name: str, problem: Problem) -> dict[str, Any]:
    selections, record = load(folder / f"{name}.npz", problem.count)
    best, _ = load(folder / "best.npz", problem.count)
    with np.load(folder / "data.npz") as data:
        values = data["values"].astype(np.float64)
    weight = selections @ problem.items.weights().numpy().T
    scores = {
        "regret": 1 - (values * selections).sum() / (values * best).sum(),
        "published": 1 - (values * selections)[:100].sum() / (values * best)[:100].sum(),
        "overweight": float((weight - problem.items.capacities().numpy()).max().clip(0.0)),
    }
    return {key: float(value) for key, value in scores.items()} | {
        key: value for key, value in record.items() if isinstance(value, int | float)
    }
