"""Compute the numbers of results/traffic_*.json again, from the flows on file.

    python scripts/check_traffic.py                    # all networks with results
    python scripts/check_traffic.py SiouxFalls

Nothing of the package is imported. The shortest times are found again by SciPy's Dijkstra, each origin on a graph of its
own in which no centroid can be passed through; scores, gaps and violations are computed here.
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
CASES = ("test", "demand", "closed")
Array = NDArray[np.float64]


class Roads:
    """The network of a case, as arrays."""

    def __init__(self, truth: Mapping[str, Array], case: str) -> None:
        keep = np.ones(len(truth["network_tail"]), dtype=bool)
        if case == "closed":
            keep[int(truth["closed_link"])] = False
        self.keep = keep
        self.tail, self.head = (truth[f"network_{end}"][keep].astype(int) for end in ("tail", "head"))
        self.law = {name: truth[f"latency_{name}"][:, keep] for name in ("constant", "coefficient", "scale", "power")}
        self.nodes, self.first_thru = int(truth["network_nodes"]), int(truth["network_first_thru"])
        trips = truth["network_trips"] * (float(truth["factor"]) if case == "demand" else 1.0)
        self.trips = trips * (1.0 - np.eye(len(trips)))

    def times(self, flow: Array) -> Array:
        """What every link takes in every context."""
        law = self.law
        return law["constant"] + (law["coefficient"] * (flow / law["scale"])[:, :, None] ** law["power"]).sum(-1)

    def shortest(self, times: Array) -> float:
        """The time of all trips on shortest paths."""
        total = 0.0
        for origin in np.flatnonzero(self.trips.sum(1) > 0):
            open_ = (self.tail >= self.first_thru) | (self.tail == origin)
            # Of parallel links the quickest counts; a link of no time gets so little that it stays a link.
            order = np.lexsort((times[open_], self.head[open_], self.tail[open_]))
            tail, head, time = self.tail[open_][order], self.head[open_][order], times[open_][order]
            first = np.ones(len(tail), dtype=bool)
            first[1:] = (tail[1:] != tail[:-1]) | (head[1:] != head[:-1])
            graph = csr_array(
                (np.maximum(time[first], 1e-300), (tail[first], head[first])), shape=(self.nodes, self.nodes)
            )
            distance = dijkstra(graph, indices=origin)[: len(self.trips)]
            wanted = self.trips[origin] > 0
            total += float((self.trips[origin][wanted] * distance[wanted]).sum())
        return total

    def gap(self, flow: Array) -> Array:
        """`(TSTT - SPTT) / TSTT` for every context."""
        times = self.times(flow)
        total = (times * flow).sum(1)
        return (total - np.array([self.shortest(row) for row in times])) / total

    def violation(self, flow: Array) -> float:
        """The largest imbalance of a node over all contexts, per trip."""
        balance = np.zeros((len(flow), self.nodes))
        for link, (i, j) in enumerate(zip(self.tail, self.head, strict=True)):
            balance[:, i] -= flow[:, link]
            balance[:, j] += flow[:, link]
        wanted = np.zeros(self.nodes)
        wanted[: len(self.trips)] = self.trips.sum(0) - self.trips.sum(1)
        return float(np.abs(balance - wanted).max() / self.trips.sum())


def scores(x: Array, true: Array) -> dict[str, float]:
    """What the table shows of flows."""
    relative = np.abs(x - true) / (np.abs(true) + 1e-3)
    return {
        "trafix_5e-3": 100 * float((relative < 5e-3).mean()),
        "trafix_1e-2": 100 * float((relative < 1e-2).mean()),
        "relative_error": float((np.linalg.norm(x - true, axis=1) / np.linalg.norm(true, axis=1)).mean()),
        "mse": float(((x - true) ** 2).mean()),
    }


def complaints(folder: Path, methods: Mapping[str, Any], index: int) -> Iterator[str]:
    """What does not agree for one seed, the `index`-th of the recorded ones."""
    with np.load(folder / "truth.npz") as kept:
        truth = dict(kept)
    for case in CASES:
        roads = Roads(truth, case)
        true = truth[case][:, roads.keep]
        worst = float(roads.gap(true).max())
        if not worst < 1e-5:
            yield f"{case}: the flows on file as equilibria have a gap of {worst:.1e}"
        for name, recorded in methods.items():
            file = folder / f"{name}.npz"
            if not file.is_file():
                yield f"{name}, {case}: there are no predictions in {file}"
                continue
            with np.load(file) as kept:
                x = kept[case][:, roads.keep]
            gap = roads.gap(x)
            found = scores(x, true) | {
                "wardrop_gap": float(gap.mean()),
                "wardrop_gap_max": float(gap.max()),
                "conservation": roads.violation(x),
            }
            for key, value in found.items():
                stated = recorded[f"{case}/{key}"][index]
                if abs(value - stated) > 1e-6 * max(1.0, abs(value)):
                    yield f"{name}, {case}: {key} is {value:.8g}, recorded {stated:.8g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every seed of the results; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the numbers of the traffic tables again.")
    parser.add_argument("networks", nargs="*", help="names; all with results by default")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "traffic")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    options = parser.parse_args(arguments)
    files = [options.results / f"traffic_{name}.json" for name in options.networks]
    wrong = rows = 0
    for file in files or sorted(options.results.glob("traffic_*.json")):
        results = json.loads(file.read_text())
        if "methods" not in results:  # traffic_data.json is of the data
            continue
        rows += len(results["seeds"]) * len(results["methods"])
        for index, seed in enumerate(results["seeds"]):
            for text in complaints(options.runs / results["network"] / f"seed_{seed}", results["methods"], index):
                print(f"{results['network']}, seed {seed}: {text}")
                wrong += 1
    print(f"{rows} rows checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
