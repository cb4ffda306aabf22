"""Compute the regrets of results/knapsack_sizes.json again, from the decisions on file and PyEPO's own generator.

    python scripts/check_knapsack.py runs/knapsack_sizes

Nothing of the application is imported: weights, contexts and values are drawn by PyEPO and NumPy, the conditional mean by
averaging over the noise, selections are weighed and priced here, and the best ones are compared with HiGHS for the first
contexts of every data set. It needs PyEPO.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

ROOT = Path(__file__).parents[1]
CAPACITY = 20.0
PUBLISHED = slice(900, 1000)  # of PyEPO's thousand: 800 to learn from, 100 to choose by, 100 to test
MORE = 1000
SOLVED = 5  # contexts of each data set that HiGHS solves again
DRAWS = 400  # of the noise, evenly spaced, for the conditional mean

Array = NDArray[np.float64]


def test_data(count: int, degree: int, noise: float, seed: int) -> tuple[Array, Array, Array]:
    """Weights, values and conditional mean values of the test contexts.

    The first 100 are the last of PyEPO's data set; the others go on with its generator, which is run up to that point here.
    """
    from pyepo.data.knapsack import genData  # pyright: ignore[reportMissingImports]

    weights, contexts, values = genData(1000, 5, count, dim=2, deg=degree, noise_width=noise, seed=seed)
    random = np.random.RandomState(seed)
    random.choice(range(300, 800), size=(2, count))
    B = random.binomial(1, 0.5, (count, 5))
    random.normal(0, 1, (1000, 5))
    random.uniform(1 - noise, 1 + noise, (1000, count))
    contexts = np.concatenate([contexts[PUBLISHED], random.normal(0, 1, (MORE, 5))])
    mean = ((contexts @ B.T / np.sqrt(5) + 3) ** degree + 1) * 5 / 3.5**degree
    more = np.ceil(mean[100:] * random.uniform(1 - noise, 1 + noise, (MORE, count)))
    expected = np.zeros_like(mean)
    for share in (np.arange(DRAWS) + 0.5) / DRAWS:
        expected += np.ceil(mean * (1 - noise + 2 * noise * share)) / DRAWS
    return weights, np.concatenate([values[PUBLISHED], more]), expected


def decisions(path: Path, count: int) -> NDArray[np.uint8]:
    """0/1 selections `(contexts, count)`."""
    with np.load(path) as kept:
        return np.unpackbits(kept["selections"], axis=1, count=count)


def largest(values: Array, weights: Array) -> float:
    """The largest value of a selection that keeps the limits, by HiGHS."""
    found = milp(
        -values,
        constraints=LinearConstraint(weights, -np.inf, CAPACITY),
        bounds=Bounds(0, 1),
        integrality=np.ones_like(values),
        options={"mip_rel_gap": 0.0},
    )
    return -float(found.fun)


def complaints(folder: Path, degree: int, noise: float, count: int, seed: int, rows: dict[str, Any]) -> Iterator[str]:
    """What does not agree for one data set; `rows` holds the recorded numbers by method."""
    weights, values, expected = test_data(count, degree, noise, seed)
    best = decisions(folder / "best.npz", count)
    optimal = (values * best).sum(1)
    if (best @ weights.T > CAPACITY + 1e-6).any():
        yield "a best selection is too heavy"
    for i in range(SOLVED):
        if abs(largest(values[i], weights) - optimal[i]) > 1e-6:
            yield f"context {i}: HiGHS finds a better selection"
    floor = decisions(folder / "floor.npz", count)
    for i in range(SOLVED):
        if abs(largest(expected[i], weights) - float(expected[i] @ floor[i])) > 0.02:
            yield f"context {i}: the floor does not take the best selection under the mean values"
    for name, row in rows.items():
        chosen = decisions(folder / f"{name}.npz", count)
        if (chosen @ weights.T > CAPACITY + 1e-6).any():
            yield f"{name}: a selection is too heavy"
        worth = (values * chosen).sum(1)
        if (worth > optimal).any():
            yield f"{name}: a selection is worth more than the best"
        for key, part in (("regret", slice(None)), ("published", slice(100))):
            regret = 1 - worth[part].sum() / optimal[part].sum()
            if abs(regret - row[key]) > 1e-6:
                yield f"{name}: {key} is {regret:.6f}, recorded {row[key]:.6f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every data set of the results; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the regrets of the knapsack table again.")
    parser.add_argument("runs", type=Path, nargs="?", default=ROOT / "runs" / "knapsack_sizes")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "knapsack_sizes.json")
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text())
    wrong, checked = 0, 0
    for degree in (2, 4):
        family = results[f"degree_{degree}"]
        for count, methods in family["sizes"].items():
            for seed in results["seeds"]:
                rows = {
                    name: {key: row[key][row["seeds"].index(seed)] for key in ("regret", "published")}
                    for name, row in methods.items()
                    if seed in row["seeds"]
                }
                checked += len(rows)
                folder = options.runs / f"degree_{degree}" / count / str(seed)
                for text in complaints(folder, degree, family["noise"], int(count), seed, rows):
                    print(f"degree {degree}, {count} items, seed {seed}: {text}")
                    wrong += 1
    print(f"{checked} rows checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
