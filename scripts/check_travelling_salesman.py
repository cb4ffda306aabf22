"""Compute the regrets of the travelling-salesman tables again, from the tours on file and PyEPO's own generator.

    python scripts/check_travelling_salesman.py runs/travelling_salesman_20 runs/travelling_salesman_50

Nothing of the package is imported: contexts, costs and, without the noise, mean costs are drawn by PyEPO. Every answer must
be one closed tour: two edges at every city, all cities connected. The tours called best, and those of the floor, are
compared with HiGHS for the first contexts of every data set. It needs PyEPO.
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
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

SOLVED = 3  # contexts of each data set that HiGHS solves again
ROUNDED = 1e-4  # PyEPO's costs have four decimals; the floor's tours are under unrounded mean costs

Array = NDArray[np.float64]


def pieces(tour: NDArray[Any], first: NDArray[Any], second: NDArray[Any], n: int) -> NDArray[Any]:
    """In which piece each city is when only the edges of the tour are left."""
    on = tour > 0.5
    graph = csr_matrix((np.ones(int(on.sum())), (first[on], second[on])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def is_tour(tour: NDArray[Any], first: NDArray[Any], second: NDArray[Any], n: int) -> bool:
    """Whether the edges are 0/1, two at every city, and connect all cities."""
    if not np.isin(tour, (0.0, 1.0)).all():
        return False
    ends = np.bincount(first, tour, n) + np.bincount(second, tour, n)
    return bool((ends == 2).all()) and int(pieces(tour, first, second, n).max()) == 0


def least_cost(cost: Array, first: NDArray[Any], second: NDArray[Any], n: int) -> float:
    """The cost of the cheapest tour by HiGHS, with the subtour constraints that its answers violate."""
    at_city = np.zeros((n, len(cost)))
    at_city[first, np.arange(len(cost))] = at_city[second, np.arange(len(cost))] = 1.0
    constraints = [LinearConstraint(at_city, 2, 2)]
    while True:
        found = milp(
            cost,
            constraints=constraints,
            bounds=Bounds(0, 1),
            integrality=np.ones_like(cost),
            options={"mip_rel_gap": 0.0},
        )
        piece = pieces(found.x, first, second, n)
        if piece.max() == 0:
            return float(found.fun)
        for number in range(piece.max() + 1):
            inside = piece == number
            constraints.append(LinearConstraint((inside[first] != inside[second]).astype(float), 2, np.inf))


def complaints(folder: Path) -> Iterator[str]:
    """What does not agree for one seed of a run."""
    from pyepo.data.tsp import genData  # pyright: ignore[reportMissingImports]

    results = json.loads((folder / "results.json").read_text())
    options = yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]
    n, test = options["n_cities"], options["test"]
    count = options["train"] + options["validation"] + test
    drawn = {
        noise: genData(
            count, 5, n, deg=options["degree"], noise_width=noise, seed=options["first_data_seed"] + results["seed"]
        )
        for noise in (options["noise"], 0.0)
    }
    contexts, costs = drawn[options["noise"]]
    contexts, costs, mean = contexts[-test:], costs[-test:].astype(float), drawn[0.0][1][-test:].astype(float)
    first, second = np.triu_indices(n, 1)
    with np.load(folder / "predictions.npz") as file:
        answers, best, inputs = {"model": file["answer"]}, file["target"], file["inputs"]
    with np.load(folder / "baselines.npz") as file:
        answers |= {name: file[name] for name in file.files}
    if not np.allclose(inputs, contexts, atol=1e-6):
        yield "the contexts are not PyEPO's"
    optimal = (costs * best).sum(1)
    for i in range(SOLVED):
        if abs(least_cost(costs[i], first, second, n) - optimal[i]) > 1e-5 * optimal[i]:
            yield f"context {i}: HiGHS finds a better tour"
        expected = float((mean[i] * answers["floor"][i]).sum())
        if expected - least_cost(mean[i], first, second, n) > n * ROUNDED:
            yield f"context {i}: the floor does not take the best tour under the mean costs"
    for name, tours in {**answers, "best": best}.items():
        closed = sum(is_tour(tour, first, second, n) for tour in tours)
        if closed < test:
            yield f"{name}: {test - closed} answers are no closed tours"
    if set(answers) != set(results["test"]):
        yield f"methods on file and in the results differ: {set(answers) ^ set(results['test'])}"
    for name, scores in results["test"].items():
        extra = (costs * answers[name]).sum(1) - optimal
        if extra.min() < -1e-4 * optimal.mean():
            yield f"{name}: a tour is cheaper than the best"
        regret = extra.sum() / optimal.sum()
        if abs(regret - scores["regret"]) > 1e-5:
            yield f"{name}: the regret is {regret:.6f}, recorded {scores['regret']:.6f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every seed of the runs; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the regrets of travelling-salesman runs again.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders that il2o run wrote, of one seed or several")
    options = parser.parse_args(arguments)
    wrong = checked = 0
    for run in options.runs:
        folders = sorted(path.parent for path in run.glob("**/baselines.npz"))
        if not folders:
            parser.error(f"{run} has no baselines.npz; il2o run writes it.")
        for folder in folders:
            checked += 1
            for text in complaints(folder):
                print(f"{folder}: {text}")
                wrong += 1
    print(f"{checked} data sets checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
