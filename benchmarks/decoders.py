"""The exact combinatorial floor: how long the best decision takes when nothing is differentiated, batch 32, one thread.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/decoders.py      # writes results/decoders.json

Shortest paths on directed grids and on an 8-neighbour grid of cells, knapsacks with two constraints in the shape of PyEPO's
benchmark, each against another exact method; and one SPO+ step on the same oracle: ours, PyEPO's with the batched model, and
PyEPO's as it asks an ordinary model, one sample after the other. Every method's decisions cost the same, or the script
fails. All methods of a row run in turns of at least 5 ms each. Other work on the machine only adds, so the least time over
the turns counts; the median stands beside it.
"""

import argparse
import json
import math
import os
import statistics
import time
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra as scipy_dijkstra

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid, _bellman, draw
from implicit_l2o.decoders import Dijkstra, GridPaths, Knapsack
from implicit_l2o.decoders._grid_kernel import grid_paths
from implicit_l2o.decoders._knapsack_kernel import knapsacks
from implicit_l2o.losses import spo_plus
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[1]
BATCH = 32


Times = dict[str, dict[str, float]]


def in_turns(methods: Mapping[str, Callable[[], object]], *, seconds: float, turn: float = 5e-3) -> Times:
    """Least and median milliseconds of each method: all in turns, for about so many seconds and at least three turns."""
    timers = {name: timeit.Timer(method) for name, method in methods.items()}
    number = {}
    for name, timer in timers.items():
        timer.timeit(1)  # compiles, and fills caches
        number[name] = max(1, math.ceil(turn / timer.timeit(1)))
    times: dict[str, list[float]] = {name: [] for name in methods}
    end, turns = time.perf_counter() + seconds, 0
    while turns < 3 or time.perf_counter() < end:
        for name, timer in timers.items():
            times[name].append(1e3 * timer.timeit(number[name]) / number[name])
        turns += 1
    return {name: {"least": min(values), "median": statistics.median(values)} for name, values in times.items()}


def agree(costs: torch.Tensor, *decisions: np.ndarray | torch.Tensor) -> None:
    """All decisions cost the same."""
    totals = [(costs.double() * torch.as_tensor(x).double()).sum(1) for x in decisions]
    for total in totals[1:]:
        torch.testing.assert_close(total, totals[0], rtol=1e-6, atol=1e-6)


def by_scipy(costs: np.ndarray, tails: np.ndarray, heads: np.ndarray, n_nodes: int) -> np.ndarray:
    """SciPy's Dijkstra, sample by sample; the path is read off the predecessors."""
    number = {(int(tail), int(head)): arc for arc, (tail, head) in enumerate(zip(tails, heads, strict=True))}
    paths = np.zeros_like(costs)
    for cost, path in zip(costs, paths, strict=True):
        graph = csr_matrix((cost, (tails, heads)), shape=(n_nodes, n_nodes))
        _, before = scipy_dijkstra(graph, indices=0, return_predecessors=True)
        node = n_nodes - 1
        while node != 0:
            path[number[int(before[node]), node]] = 1.0
            node = int(before[node])
    return paths


def directed_grid(side: int, seconds: float) -> Times:
    """Paths on a directed grid."""
    grid, decoder = Grid(side), GridPaths(side)
    costs = torch.from_numpy(draw(BATCH, n_arcs=grid.n_arcs)[1])
    values, buffer = costs.numpy(), np.zeros((BATCH, grid.n_arcs))
    tails, heads = grid.arcs.T
    heap = Dijkstra(side**2, grid.arcs, 0, side**2 - 1)
    agree(costs, decoder(costs), _bellman(grid, values), heap(costs), by_scipy(values, tails, heads, side**2))
    return in_turns(
        {
            "kernel": lambda: grid_paths(values, side, buffer),
            "GridPaths": lambda: decoder(costs),
            "NumPy": lambda: _bellman(grid, values),
            "Dijkstra": lambda: heap(costs),
            "SciPy": lambda: by_scipy(values, tails, heads, side**2),
        },
        seconds=seconds,
    )


def cells(side: int, seconds: float) -> Times:
    """Paths over an 8-neighbour grid of cells; an arc costs what the cell costs that it enters."""
    node = np.arange(side**2).reshape(side, side)
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    arcs = np.array(
        [
            (node[r, c], node[r + i, c + j])
            for r in range(side)
            for c in range(side)
            for i, j in steps
            if 0 <= r + i < side and 0 <= c + j < side
        ]
    )
    decoder = Dijkstra(side**2, arcs, 0, side**2 - 1)
    costs = torch.from_numpy(np.random.default_rng(0).uniform(0.8, 9.2, (BATCH, side**2)))[:, arcs[:, 1]]
    agree(costs, decoder(costs), by_scipy(costs.numpy(), *arcs.T, side**2))
    return in_turns(
        {"Dijkstra": lambda: decoder(costs), "SciPy": lambda: by_scipy(costs.numpy(), *arcs.T, side**2)},
        seconds=seconds,
    )


def by_highs(costs: np.ndarray, weights: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """HiGHS, sample by sample."""
    rows, bounds = LinearConstraint(weights, ub=capacity), Bounds(0, 1)
    return np.stack([milp(cost, constraints=rows, bounds=bounds, integrality=np.ones(len(cost))).x for cost in costs])


def knapsack(items: int, seconds: float) -> Times:
    """Two constraints, weights 3.00 to 7.99, capacities of 20, integer values of a polynomial of degree 4."""
    weights = np.random.default_rng(0).integers(300, 800, (2, items)) / 100
    capacity = np.array([20.0, 20.0])
    decoder = Knapsack(weights, capacity)
    costs = torch.from_numpy(-np.ceil(5 * draw(BATCH, n_arcs=items)[1]))
    buffer = np.zeros((BATCH, items))
    agree(costs, decoder(costs), by_highs(costs.numpy(), weights, capacity).round())
    return in_turns(
        {
            "kernel": lambda: knapsacks(costs.numpy(), weights, capacity * (1 + 1e-7), buffer, 10**8),
            "Knapsack": lambda: decoder(costs),
            "HiGHS": lambda: by_highs(costs.numpy(), weights, capacity),
        },
        seconds=seconds,
    )


def spo_plus_step(side: int, seconds: float) -> Times:
    """Value and gradient of SPO+ on a directed grid, all on the same oracle."""
    from implicit_l2o.interop.pyepo import SPOPlus, opt_model

    grid, decoder = Grid(side), GridPaths(side)
    A, b = grid.flow_constraints()
    model = opt_model(il2o.LinearProgram(A_eq=A, b_eq=b), decoder)
    one_by_one = opt_model(il2o.LinearProgram(A_eq=A, b_eq=b), decoder)
    set_objective = one_by_one.setObj
    one_by_one.setObj = lambda c: set_objective(c.copy())  # a copy is no row of a batch, so nothing is solved ahead
    costs = torch.from_numpy(draw(BATCH, n_arcs=grid.n_arcs)[1]).float()
    best = decoder(costs)
    predicted = (costs * (0.5 + torch.rand_like(costs))).requires_grad_()
    batched, looped = SPOPlus().bind(model), SPOPlus().bind(one_by_one)
    losses = {
        "spo_plus": lambda: spo_plus(decoder, predicted, costs, best).mean(),
        "PyEPO, batched": lambda: batched(predicted, costs, best),
        "PyEPO, one by one": lambda: looped(predicted, costs, best),
    }
    gradients = [torch.autograd.grad(loss(), predicted)[0] for loss in losses.values()]
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])
    return in_turns(
        {name: lambda loss=loss: torch.autograd.grad(loss(), predicted) for name, loss in losses.items()},
        seconds=seconds,
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row; default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "decoders.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    result: dict = {"command": "python benchmarks/decoders.py", "batch": BATCH, "unit": "ms a batch"}
    rows: list[tuple[str, Callable[[int, float], Times], tuple[int, ...]]] = [
        ("directed_grid", directed_grid, (5, 10, 30, 100)),
        ("cells", cells, (12,)),
        ("knapsack", knapsack, (50, 750)),
        ("spo_plus", spo_plus_step, (5, 10, 30)),
    ]
    for name, measure, sizes in rows:
        result[name] = {}
        for size in sizes:
            result[name][str(size)] = measure(size, options.seconds)
            print(name, size, json.dumps(result[name][str(size)]), flush=True)
    result |= {"threads": 1, "cores_used": len(os.sched_getaffinity(0)), "machine": machine()}
    write_json(options.out, result)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
