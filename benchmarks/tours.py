"""Exact tours on PyEPO's costs: branch and bound on 1-trees, and HiGHS with subtour constraints added as they are violated.

    python -m benchmarks.tours

Writes `results/tours.json`: processor milliseconds a sample, and the largest relative difference of the optimal costs.
The subtour constraints that one sample needed are kept for the next, as a training would. Costs are those that came true and
`2 c_hat - c`, which SPO+ asks for, with `c_hat` a least-squares fit: a share of them is negative.

Then the processor seconds that 1,000 contexts of a training take, by method, after the first steps.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from implicit_l2o.applications.travelling_salesman import CostTourTask, PyEPOTourTask, TourTask
from implicit_l2o.data.travelling_salesman import draw, generate
from implicit_l2o.decoders import TravellingSalesman
from implicit_l2o.interop.pyepo import PFYL, SPOPlus
from implicit_l2o.training import Optimization

ROOT = Path(__file__).parents[1]
SEED = 200  # no table of regrets has this data set
BATCH, WARM, TIMED = 32, 10, 20  # contexts of a step, steps before and while the time is taken

Array = NDArray[np.float64]


class HighsTours:
    """Integer programs with the subtour constraints that were violated so far."""

    def __init__(self, decoder: TravellingSalesman) -> None:
        self.decoder = decoder
        self.first, self.second = decoder.edges.T
        at_city = np.zeros((decoder.n_cities, decoder.n))
        at_city[self.first, np.arange(decoder.n)] = at_city[self.second, np.arange(decoder.n)] = 1.0
        self.degrees = LinearConstraint(csr_matrix(at_city), 2, 2)  # pyright: ignore[reportArgumentType]
        self.cuts: list[Array] = []

    def solve(self, cost: Array) -> float:
        """The cost of the cheapest tour."""
        while True:
            constraints = [self.degrees]
            if self.cuts:
                rows = csr_matrix(np.array(self.cuts))
                constraints.append(LinearConstraint(rows, 2, np.inf))  # pyright: ignore[reportArgumentType]
            found = milp(
                cost,
                constraints=constraints,
                bounds=Bounds(0, 1),
                integrality=np.ones_like(cost),
                options={"mip_rel_gap": 0.0},
            )
            chosen = self.decoder.edges[found.x > 0.5]
            graph = csr_matrix((np.ones(len(chosen)), chosen.T), shape=(self.decoder.n_cities,) * 2)
            pieces, label = connected_components(graph, directed=False)
            if pieces == 1:
                return float(found.fun)
            for piece in range(pieces):
                inside = label == piece
                self.cuts.append((inside[self.first] != inside[self.second]).astype(float))


def costs_of(n_cities: int, samples: int) -> dict[str, Array]:
    """The costs that came true, and those of SPO+."""
    drawn = draw(samples, n_cities=n_cities, seed=SEED)
    features = np.column_stack([drawn.contexts, np.ones(samples)])
    fitted = features @ np.linalg.lstsq(features, drawn.costs, rcond=None)[0]
    return {"came_true": drawn.costs, "spo_plus": 2 * fitted - drawn.costs}


def row(n_cities: int, costs: Array, by_highs: int) -> dict[str, Any]:
    """One line of the table; HiGHS solves the first few samples."""
    decoder = TravellingSalesman(n_cities)
    values = torch.from_numpy(costs)
    decoder(values[:2])
    start = time.process_time()
    tours = decoder(values).numpy()
    ours = (time.process_time() - start) / len(costs)
    highs = HighsTours(decoder)
    start = time.process_time()
    optimal = np.array([highs.solve(cost) for cost in costs[:by_highs]])
    theirs = (time.process_time() - start) / by_highs
    found = (costs * tours).sum(1)[:by_highs]
    return {
        "negative_share": float((costs < 0).mean()),
        "samples": len(costs),
        "ms": 1e3 * ours,
        "highs_samples": by_highs,
        "highs_ms": 1e3 * theirs,
        "difference": float(np.abs(found / optimal - 1).max()),
    }


def epoch_seconds(n_cities: int) -> dict[str, float]:
    """Processor seconds that a training on 1,000 contexts takes, by method; the first steps warm up."""
    data = generate(n_cities=n_cities, train=BATCH * (WARM + TIMED), validation=1, test=1, seed=SEED).train
    batches = list(
        zip(*(field.split(BATCH) for field in (data.contexts, data.tours, data.costs, data.mean_costs)), strict=True)
    )
    methods = {
        "model": TourTask(n_cities=n_cities),
        "solution": TourTask(n_cities=n_cities, loss="solution", perturbation=0.5, copies=2),
        "relaxed_spo_plus": CostTourTask(n_cities=n_cities, loss="spo_plus_relaxed"),
        "spo_plus": PyEPOTourTask(SPOPlus(), n_cities=n_cities),
        "pfyl": PyEPOTourTask(PFYL(samples=1), n_cities=n_cities),
        "two_stage": CostTourTask(n_cities=n_cities),
    }
    seconds = {}
    for name, task in methods.items():
        optimizer = Optimization(learning_rate=0.1).optimizer(task)
        start = 0.0
        for step, batch in enumerate(batches):
            if step == WARM:
                start = time.process_time()
            loss = task.loss(task.training_inference(batch[0]), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds[name] = (time.process_time() - start) * 1000 / (BATCH * TIMED)
    return seconds


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Time exact tours; writes results/tours.json.")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--highs", type=int, default=10, help="samples that HiGHS solves as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for n_cities in (20, 30, 50):
        for kind, costs in costs_of(n_cities, options.samples).items():
            rows.setdefault(str(n_cities), {})[kind] = row(n_cities, costs, options.highs)
            print(n_cities, kind, rows[str(n_cities)][kind], flush=True)
    epochs = {}
    for n_cities in (20, 50):
        epochs[str(n_cities)] = epoch_seconds(n_cities)
        print(n_cities, epochs[str(n_cities)], flush=True)
    written = {"seed": SEED, "cities": rows, "epoch_seconds": epochs}
    (ROOT / "results" / "tours.json").write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
