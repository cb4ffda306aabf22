"""Recompute the figures of shortest-path runs from their saved predictions, by code that shares nothing with the package.

    python scripts/check_paths.py runs/shortest_path_grid_*

The data are drawn anew with NumPy from the seeds in the configuration; every answer must be a path; floor and regrets
are compared with `results.json`. The exit status is 1 where a figure differs.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

Array = NDArray[np.float64]
_CLOSE = 2e-5  # of a regret: the run computes in float32


def arcs(side: int) -> list[tuple[int, int]]:
    """Tail and head of every arc: row by row, those to the east before those to the south."""
    found = []
    for i in range(side):
        found += [(i * side + j, i * side + j + 1) for j in range(side - 1)]
        if i + 1 < side:
            found += [(i * side + j, (i + 1) * side + j) for j in range(side)]
    return found


def cheapest(costs: Array, side: int) -> Array:
    """The cost of the cheapest path of every sample, node by node."""
    distance: list[Array] = [np.zeros(len(costs))] + [np.full(len(costs), np.inf)] * (side**2 - 1)
    for arc, (tail, head) in sorted(enumerate(arcs(side)), key=lambda item: item[1][0]):
        distance[head] = np.minimum(distance[head], distance[tail] + costs[:, arc])
    return distance[-1]


def is_path(answers: Array, side: int) -> bool:
    """Whether every answer is 0/1 and conserves a unit of flow from the first node to the last."""
    balance = np.zeros((len(answers), side**2))
    for arc, (tail, head) in enumerate(arcs(side)):
        balance[:, tail] -= answers[:, arc]
        balance[:, head] += answers[:, arc]
    balance[:, 0] += 1
    balance[:, -1] -= 1
    return bool(np.isin(answers, (0.0, 1.0)).all() and not balance.any())


def test_data(data: dict[str, Any], seed: int) -> tuple[Array, Array, Array]:
    """Contexts, costs and mean costs of the test split."""
    side, features = data["side"], data.get("features", 5)
    n_arcs = len(arcs(side))
    n_samples = data["train"] + data["validation"] + data["test"]
    if "degree" not in data:  # linear costs without noise
        generator = np.random.default_rng(data["first_data_seed"] + seed)
        weights = generator.uniform(size=(n_arcs, features))
        contexts = generator.uniform(size=(n_samples, features))
        mean = costs = contexts @ weights.T
    else:
        random = np.random.RandomState(data["first_data_seed"] + seed)
        B = random.binomial(1, 0.5, (n_arcs, features))
        contexts = random.normal(0, 1, (n_samples, features))
        mean = ((contexts @ B.T / features**0.5 + 3) ** data["degree"] + 1) / 3.5 ** data["degree"]
        costs = mean * random.uniform(1 - data["noise"], 1 + data["noise"], mean.shape)
    return contexts[-data["test"] :], costs[-data["test"] :], mean[-data["test"] :]


def compare(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Name, recomputed and recorded value of every figure of one seed's folder."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    results = json.loads((folder / "results.json").read_text())
    data = config["data"]["init_args"]
    side = data["side"]
    contexts, costs, mean = test_data(data, config["seed_everything"])
    with np.load(folder / "predictions.npz") as file:
        predictions = {name: file[name] for name in file.files}
    if not np.allclose(predictions["inputs"], contexts, atol=1e-6):
        raise SystemExit(f"{folder}: the contexts of the predictions are not those of the seed.")
    answers = {"model": predictions["answer"]}
    with np.load(folder / "baselines.npz") as file:
        answers |= {name: file[name] for name in file.files}
    best, expected_best = cheapest(costs, side), cheapest(mean, side)
    for name, answer in answers.items():
        answer = answer.astype(np.float64)
        if not is_path(answer, side):
            raise SystemExit(f"{folder}: an answer of {name} is not a path.")
        yield f"{name}: regret", ((costs * answer).sum(1) - best).sum() / best.sum(), results["test"][name]["regret"]
        excess = ((mean * answer).sum(1) - expected_best).sum() / best.sum()
        if "expected_excess" in results["test"][name]:
            yield f"{name}: expected excess", excess, results["test"][name]["expected_excess"]
        if name == "floor":
            gap = (mean * answer).sum(1) - expected_best
            yield "floor: above the best expected cost", float(gap.max()), 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every seed of every folder; the exit status."""
    parser = argparse.ArgumentParser(description="Recompute the figures of shortest-path runs from their predictions.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders that il2o run wrote")
    wrong = 0
    for run in parser.parse_args(arguments).runs:
        for folder in sorted(run.glob("seed_*")) or [run]:
            figures = list(compare(folder))
            off = [(name, mine, theirs) for name, mine, theirs in figures if not abs(mine - theirs) <= _CLOSE]
            for name, mine, theirs in off:
                print(f"{folder}: {name}: {theirs:.6f} is recorded, {mine:.6f} follows from the predictions")
            wrong += len(off)
            print(f"{folder}: {len(figures) - len(off)} of {len(figures)} figures agree")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
