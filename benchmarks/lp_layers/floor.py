"""What the integer problem itself costs: the exact shortest path of every sample, without a gradient."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.lp_layers.iterations import Study
from benchmarks.lp_layers.problems import grid
from implicit_l2o.data.shortest_path import Grid

SIDES = (5, 10, 15, 20, 25, 30, 100)
REPEATS = 9


def oracle(side: int) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The fastest exact decoder that is there, with its name."""
    try:
        from implicit_l2o.decoders import GridPaths  # needs numba

        return "decoders.GridPaths", GridPaths(side)
    except ImportError:
        return "Grid.shortest_paths", Grid(side).shortest_paths


def floors(*, quick: bool = False) -> Study:
    """Seconds for a batch by side."""
    for side in SIDES[:2] if quick else SIDES:
        cost = torch.from_numpy(grid(side).cost)
        name, solve = oracle(side)
        solve(cost)  # compiles
        seconds = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            solve(cost)
            seconds.append(time.perf_counter() - begun)
        yield f"grid {side}", {"oracle": name, "seconds": statistics.median(seconds)}
