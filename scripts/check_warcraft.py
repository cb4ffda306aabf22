"""Compute the numbers of results/warcraft.json again, from the paths on file.

    python scripts/check_warcraft.py runs/warcraft

Nothing of the application is imported. The cheapest paths of the test maps are found again by SciPy's Dijkstra; every path
on file is followed from corner to corner over neighbouring cells; and regret, cost ratio and the rates are computed here.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

ROOT = Path(__file__).parents[1]
SAME = 1e-5  # relative: costs that differ by less are equal
STEPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]

Array = NDArray[np.float64]


def cheapest(costs: Array) -> float:
    """What the cheapest path from the first cell to the last costs, without the first cell."""
    side = len(costs)
    row, column, value = [], [], []
    for i in range(side):
        for j in range(side):
            for dy, dx in STEPS:
                if 0 <= i + dy < side and 0 <= j + dx < side:
                    row.append(i * side + j)
                    column.append((i + dy) * side + j + dx)
                    value.append(costs[i + dy, j + dx])
    graph = csr_array((value, (row, column)), shape=(side**2, side**2))
    return float(dijkstra(graph, indices=0)[-1])


def leads_through(path: NDArray[np.bool_]) -> bool:
    """Whether the cells are those of a path between the corners that never touches itself.

    Then both corners have one neighbour among the cells, every other cell has two, and all hang together.
    """
    cells = {(int(i), int(j)) for i, j in np.argwhere(path)}
    first, last = (0, 0), (len(path) - 1, len(path) - 1)
    if first not in cells or last not in cells:
        return False
    around = {(i, j): [(i + y, j + x) for y, x in STEPS if (i + y, j + x) in cells] for i, j in cells}
    if any(len(beside) != (1 if cell in (first, last) else 2) for cell, beside in around.items()):
        return False
    seen, here = {first}, first
    while here != last:
        ahead = [cell for cell in around[here] if cell not in seen]
        if not ahead:
            return False
        here = ahead[0]
        seen.add(here)
    return seen == cells


def price(paths: NDArray[np.bool_], costs: Array) -> Array:
    """What every path costs, without the cell it starts in."""
    entered = paths.copy()
    entered[:, 0, 0] = False
    return np.where(entered, costs, 0.0).sum((1, 2))


def scores(paths: NDArray[np.bool_], best: NDArray[np.bool_], costs: Array, optimal: Array) -> dict[str, float]:
    """What the table shows of a method."""
    paid = price(paths, costs)
    return {
        "regret": float((paid - optimal).sum() / optimal.sum()),
        "cost_ratio": float((paid / optimal).mean()),
        "exact": float((paid <= (1 + SAME) * optimal).mean()),
        "identical": float((paths == best).all((1, 2)).mean()),
    }


def complaints(folder: Path, methods: Mapping[str, Any], index: int) -> Iterator[str]:
    """What does not agree for one seed, the `index`-th of the recorded ones."""
    with np.load(folder / "truth.npz") as truth:
        best, costs = truth["paths"] > 0, truth["costs"].astype(np.float64)
    optimal = np.array([cheapest(one) for one in costs])
    if not np.allclose(price(best, costs), optimal, rtol=SAME, atol=0.0):
        yield "a path on file as the cheapest is not"
    for name, recorded in methods.items():
        with np.load(folder / f"{name}.npz") as kept:
            paths = kept["paths"] > 0
        astray = sum(not leads_through(path) for path in paths)
        if len(paths) != len(costs) or astray:
            yield f"{name}: {astray} of {len(paths)} paths do not lead from corner to corner"
        for key, value in scores(paths, best, costs, optimal).items():
            if abs(value - recorded[key][index]) > 1e-6 * max(1.0, abs(value)):
                yield f"{name}: {key} is {value:.6f}, recorded {recorded[key][index]:.6f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every seed of the results; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the numbers of the Warcraft table again.")
    parser.add_argument("runs", type=Path, nargs="?", default=ROOT / "runs" / "warcraft")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "warcraft.json")
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text())
    wrong = 0
    for index, seed in enumerate(results["seeds"]):
        for text in complaints(options.runs / f"seed_{seed}", results["methods"], index):
            print(f"seed {seed}: {text}")
            wrong += 1
    print(f"{len(results['seeds']) * len(results['methods'])} rows checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
