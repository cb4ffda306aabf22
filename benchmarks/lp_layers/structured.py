"""Linear programs of other structure than a grid or a knapsack: who they are, not how they are solved."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Parts:
    """`min c.x, A_eq x = b_eq, A_ub x <= b_ub, lower <= x <= upper`; costs `(B, n)`, what is absent is None."""

    cost: Array
    A_eq: Any = None
    b_eq: Array | None = None
    A_ub: Any = None
    b_ub: Array | None = None
    lower: Array | float = 0.0
    upper: Array | float = np.inf


def sums(rows: int, columns: int) -> sp.csr_array:
    """The row sums, then the column sums, of a `rows x columns` array stored row by row."""
    return sp.vstack(
        [sp.kron(sp.eye_array(rows), np.ones((1, columns))), sp.kron(np.ones((1, rows)), sp.eye_array(columns))]
    ).tocsr()


def incidence(arcs: NDArray[np.int64], nodes: int, gains: Array | None = None) -> sp.csr_array:
    """-1 at the tail of an arc and its gain (1 when not given) at its head."""
    count = len(arcs)
    values = np.concatenate([-np.ones(count), np.ones(count) if gains is None else gains])
    column = np.arange(count)
    where = np.concatenate([arcs[:, 0], arcs[:, 1]]), np.concatenate([column, column])
    return sp.csr_array((values, where), shape=(nodes, count))


def random_arcs(rng: Generator, nodes: int, count: int) -> NDArray[np.int64]:
    """A directed cycle through all nodes, so that every node is reached from every other, and random arcs besides."""
    around = {(i, (i + 1) % nodes) for i in range(nodes)}
    while len(around) < count:
        tail, head = (int(i) for i in rng.integers(nodes, size=2))
        if tail != head:
            around.add((tail, head))
    return np.array(sorted(around))


def assignment(size: int) -> Callable[[Generator, int], Parts]:
    """Doubly stochastic matrices."""

    def build(rng: Generator, batch: int) -> Parts:
        return Parts(cost=rng.uniform(0, 1, (batch, size**2)), A_eq=sums(size, size), b_eq=np.ones(2 * size))

    return build


def transport(rng: Generator, batch: int) -> Parts:
    """A balanced transport from 10 places to 20; costs are distances in the plane that change with the sample."""
    supply, demand = rng.uniform(0.5, 1.5, 10), rng.uniform(0.5, 1.5, 20)
    demand *= supply.sum() / demand.sum()
    start, end = rng.uniform(0, 1, (batch, 10, 1, 2)), rng.uniform(0, 1, (batch, 1, 20, 2))
    distance = np.linalg.norm(start - end, axis=-1).reshape(batch, -1)
    return Parts(cost=distance, A_eq=sums(10, 20), b_eq=np.concatenate([supply, demand]))


def multicommodity(rng: Generator, batch: int) -> Parts:
    """Four unit demands over 15 nodes and 60 arcs that share the arcs' capacities."""
    nodes, count, goods = 15, 60, 4
    arcs = random_arcs(rng, nodes, count)
    A = sp.block_diag([incidence(arcs, nodes)] * goods)
    b = np.zeros((goods, nodes))
    for of_good in b:
        source, target = rng.choice(nodes, size=2, replace=False)
        of_good[source], of_good[target] = -1.0, 1.0
    around = arcs[:, 1] == (arcs[:, 0] + 1) % nodes
    capacity = np.where(around, float(goods), rng.uniform(0.3, 1.0, count))  # the cycle alone carries everything
    joint = sp.kron(np.ones((1, goods)), sp.eye_array(count))
    return Parts(cost=rng.uniform(0.1, 1, (batch, goods * count)), A_eq=A, b_eq=b.ravel(), A_ub=joint, b_ub=capacity)


def sparse_equations(rng: Generator, batch: int) -> Parts:
    """100 random sparse equations in 300 non-negative variables with a known interior point; costs `A^T y + s`, `s >= 0`."""
    m, n = 100, 300
    A = sp.random_array((m, n), density=0.05, rng=rng, data_sampler=lambda size: rng.normal(size=size)).tocsr()
    x = rng.uniform(0, 1, n) * (rng.uniform(size=n) < 0.6)
    cost = rng.normal(size=(batch, m)) @ A + rng.uniform(0, 1, (batch, n))  # dual feasible, so bounded
    return Parts(cost=cost, A_eq=A, b_eq=A @ x)


def sparse_inequalities(rng: Generator, batch: int) -> Parts:
    """150 random sparse inequalities in 300 variables between -1 and 1."""
    p, n = 150, 300
    A = sp.random_array((p, n), density=0.05, rng=rng, data_sampler=lambda size: rng.normal(size=size)).tocsr()
    return Parts(cost=rng.normal(size=(batch, n)), A_ub=A, b_ub=rng.uniform(0.1, 1.0, p), lower=-1.0, upper=1.0)


def set_cover(rng: Generator, batch: int) -> Parts:
    """The relaxation of covering 80 elements by 200 sets."""
    elements, count = 80, 200
    member = rng.uniform(size=(elements, count)) < 0.05
    for element in np.flatnonzero(member.sum(1) < 2):
        member[element, rng.choice(count, 2, replace=False)] = True
    return Parts(
        cost=rng.uniform(0.5, 1.5, (batch, count)), A_ub=-member.astype(float), b_ub=-np.ones(elements), upper=1.0
    )


def facility_location(rng: Generator, batch: int) -> Parts:
    """Ten facilities `y` and 20 clients `x`: a client is served, and only by what is open; strong relaxation."""
    places, clients = 10, 20
    served = places * clients
    serve = sp.hstack([sp.kron(np.ones((1, places)), sp.eye_array(clients)), sp.csr_array((clients, places))])
    is_open = sp.hstack([sp.eye_array(served), -sp.kron(sp.eye_array(places), np.ones((clients, 1)))])
    distance = np.linalg.norm(rng.uniform(0, 1, (batch, places, 1, 2)) - rng.uniform(0, 1, (1, clients, 2)), axis=-1)
    cost = np.concatenate([distance.reshape(batch, -1), rng.uniform(0.5, 1.5, (batch, places))], axis=1)
    return Parts(
        cost=cost,
        A_eq=serve,
        b_eq=np.ones(clients),
        A_ub=is_open,
        b_ub=np.zeros(served),
        upper=np.concatenate([np.full(served, np.inf), np.ones(places)]),
    )


def flow_with_capacities(rng: Generator, batch: int) -> Parts:
    """A minimum-cost flow of 3 units over 60 nodes and 300 arcs of capacity 0.3 to 1.5."""
    nodes, count = 60, 300
    arcs = random_arcs(rng, nodes, count)
    capacity = rng.uniform(0.3, 1.5, count)
    capacity[arcs[:, 1] == (arcs[:, 0] + 1) % nodes] = 3.0
    b = np.zeros(nodes)
    b[0], b[nodes // 2] = -3.0, 3.0
    return Parts(cost=rng.uniform(0.1, 1, (batch, count)), A_eq=incidence(arcs, nodes), b_eq=b, upper=capacity)


def portfolio(rng: Generator, batch: int) -> Parts:
    """300 assets: 20 units of budget, at most 1 each, 12 sectors of at most 3, and 4 exposures to factors within limits."""
    n, sectors, factors = 300, 12, 4
    sector = np.zeros((sectors, n))
    sector[rng.integers(sectors, size=n), np.arange(n)] = 1.0
    exposure = rng.normal(size=(factors, n))
    A = np.concatenate([sector, exposure, -exposure])
    b = np.concatenate([np.full(sectors, 3.0), np.full(2 * factors, 2.0)])
    loading = rng.normal(size=(batch, factors)) @ exposure
    return Parts(
        cost=rng.normal(size=(batch, n)) + 0.5 * loading,
        A_eq=np.ones((1, n)),
        b_eq=np.array([20.0]),
        A_ub=A,
        b_ub=b,
        upper=1.0,
    )


def b_matching(rng: Generator, batch: int) -> Parts:
    """The heaviest b-matching of a random bipartite graph: 25 and 30 nodes, 250 edges, degrees at most 1 to 3."""
    left, right, edges = 25, 30, 250
    chosen = rng.choice(left * right, edges, replace=False)
    ends = np.stack([chosen // right, left + chosen % right])
    where = ends.ravel(), np.tile(np.arange(edges), 2)
    A = sp.csr_array((np.ones(2 * edges), where), shape=(left + right, edges))
    degrees = rng.integers(1, 4, left + right).astype(float)
    return Parts(cost=-rng.uniform(0.1, 1, (batch, edges)), A_ub=A, b_ub=degrees, upper=1.0)


def scheduling(rng: Generator, batch: int) -> Parts:
    """Time-indexed relaxation: 12 jobs of 1 to 4 slots, each started once among 25, at most 2 running at a time."""
    jobs, slots = 12, 25
    length = rng.integers(1, 5, jobs)
    starts = [(job, slot) for job in range(jobs) for slot in range(slots - length[job] + 1)]
    once, busy = np.zeros((jobs, len(starts))), np.zeros((slots, len(starts)))
    for column, (job, slot) in enumerate(starts):
        once[job, column] = 1.0
        busy[slot : slot + length[job], column] = 1.0
    job, slot = np.array(starts).T
    weight = rng.uniform(0.5, 1.5, (batch, jobs))
    cost = weight[:, job] * (slot + length[job]) + rng.normal(size=(batch, len(starts)))
    return Parts(cost=cost, A_eq=once, b_eq=np.ones(jobs), A_ub=busy, b_ub=np.full(slots, 2.0))


def generalized_network(rng: Generator, batch: int) -> Parts:
    """A flow that gains or loses up to a fifth on each of 240 arcs between 50 nodes; the demand is that of a known flow."""
    nodes, count = 50, 240
    arcs = random_arcs(rng, nodes, count)
    A = incidence(arcs, nodes, rng.uniform(0.8, 1.2, count))
    flow = rng.uniform(0, 1, count) * (rng.uniform(size=count) < 0.5)
    return Parts(cost=rng.uniform(0.1, 1, (batch, count)), A_eq=A, b_eq=A @ flow, upper=1.0)


GENERAL: Mapping[str, Callable[[Generator, int], Parts]] = {
    "assignment 10x10": assignment(10),
    "assignment 20x20": assignment(20),
    "transport 10x20": transport,
    "multi-commodity flow": multicommodity,
    "sparse equations": sparse_equations,
    "sparse inequalities": sparse_inequalities,
    "set cover": set_cover,
    "facility location": facility_location,
    "flow with capacities": flow_with_capacities,
    "portfolio": portfolio,
    "b-matching": b_matching,
    "scheduling": scheduling,
    "generalized network": generalized_network,
}
