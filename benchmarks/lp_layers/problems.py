"""The measured programs: grids, knapsacks, and ten and more of other structure, each with 32 costs of unit root mean square.

Every builder is a function of a seed alone, so that a row can be made again anywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

import implicit_l2o as il2o
from benchmarks.lp_layers.structured import GENERAL, Parts
from implicit_l2o.data.shortest_path import Grid, draw

BATCH = 32


@dataclass(frozen=True, eq=False)
class Row:
    """One polyhedron with its costs.

    Attributes:
        name: of the row.
        family: `grid`, `knapsack` or `general`.
        A_eq: `(m, n)` or None, like the other three as SciPy and NumPy have them.
        lower: `(n,)`; upper: `(n,)`, infinite where there is none.
        cost: `(B, n)`, every sample with a root mean square of 1.
        cotangent: `(B, n)` what the backward pass is given: the gradient of `sum(cotangent * x)`.
    """

    name: str
    family: str
    A_eq: sp.csr_array | None
    b_eq: NDArray[np.float64] | None
    A_ub: sp.csr_array | None
    b_ub: NDArray[np.float64] | None
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    cost: NDArray[np.float64]
    cotangent: NDArray[np.float64] = field(repr=False)

    @property
    def n(self) -> int:
        """Number of variables."""
        return len(self.lower)

    @property
    def m(self) -> int:
        """Number of rows, without bounds."""
        return sum(0 if A is None else A.shape[0] for A in (self.A_eq, self.A_ub))

    def program(self) -> il2o.LinearProgram:
        """As the library takes it; a bound that is the same everywhere is a number, as a user would give it."""
        return il2o.LinearProgram(
            A_eq=self.A_eq,
            b_eq=_tensor(self.b_eq),
            A_ub=self.A_ub,
            b_ub=_tensor(self.b_ub),
            lower=_bound(self.lower),
            upper=_bound(self.upper),
        )


def _tensor(b: NDArray[np.float64] | None) -> Tensor | None:
    return None if b is None else torch.from_numpy(b)


def _bound(bound: NDArray[np.float64]) -> float | Tensor:
    return float(bound[0]) if (bound == bound[0]).all() else torch.from_numpy(bound)


def unit_rms(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every sample divided by its root mean square."""
    return cost / np.sqrt((cost**2).mean(1, keepdims=True))


def row_of(name: str, family: str, parts: Parts, seed: int) -> Row:
    """Complete the parts of a builder."""
    n = parts.cost.shape[1]
    lower, upper = (np.broadcast_to(np.asarray(b, float), (n,)).copy() for b in (parts.lower, parts.upper))
    blocks = [None if A is None else sp.csr_array(A).astype(float) for A in (parts.A_eq, parts.A_ub)]
    sides = [None if b is None else np.asarray(b, float) for b in (parts.b_eq, parts.b_ub)]
    cotangent = np.random.default_rng(1000 + seed).normal(size=parts.cost.shape)
    return Row(
        name, family, blocks[0], sides[0], blocks[1], sides[1], lower, upper, unit_rms(parts.cost), cotangent=cotangent
    )


def grid(side: int, seed: int = 0, batch: int = BATCH) -> Row:
    """The directed grid with the costs of PyEPO's generator, degree 4 and noise 0.5."""
    graph = Grid(side)
    tails, heads = graph.arcs.T
    column = np.arange(graph.n_arcs)
    values = np.concatenate([-np.ones(graph.n_arcs), np.ones(graph.n_arcs)])
    where = np.concatenate([tails, heads]), np.concatenate([column, column])
    A = sp.csr_array((values, where), shape=(side**2, graph.n_arcs))
    b = np.zeros(side**2)
    b[0], b[-1] = -1.0, 1.0
    _, costs, _ = draw(batch, n_arcs=graph.n_arcs, degree=4, noise=0.5, seed=135 + seed)
    return row_of(f"grid {side}", "grid", Parts(cost=costs, A_eq=A, b_eq=b), seed)


def knapsack(items: int, seed: int = 0, batch: int = BATCH) -> Row:
    """Two capacities at half the total weight, the box as bounds; the costs are minus the values of PyEPO's generator."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(3.0, 8.0, (2, items))
    features, matrix = rng.normal(size=(batch, 5)), rng.binomial(1, 0.5, (items, 5))
    values = np.ceil(5 / 3.5**4 * ((features @ matrix.T / 5**0.5 + 3) ** 4 + 1) * rng.uniform(0.5, 1.5, (batch, items)))
    capacity = weights.sum(1) / 2
    parts = Parts(cost=-values, A_ub=weights, b_ub=capacity, upper=1.0)
    return row_of(f"knapsack {items}", "knapsack", parts, seed)


def general(name: str, seed: int = 0, batch: int = BATCH) -> Row:
    """One of `structured.GENERAL`."""
    return row_of(name, "general", GENERAL[name](np.random.default_rng(seed), batch), seed)


GRIDS = tuple(f"grid {side}" for side in (5, 10, 15, 20, 25, 30))
LARGE = ("grid 100",)  # ours alone
KNAPSACKS = ("knapsack 50", "knapsack 500")
_SIZED = {grid: (*GRIDS, *LARGE), knapsack: KNAPSACKS}
ROWS: Mapping[str, Callable[[], Row]] = {
    name: partial(build, int(name.split()[1])) for build, names in _SIZED.items() for name in names
} | {name: partial(general, name) for name in GENERAL}
