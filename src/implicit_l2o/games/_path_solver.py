"""What prepares a network for the compiled solver, and what reads its answer."""

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from implicit_l2o._numba import require_numba
from implicit_l2o._solution import ConvergenceWarning, Status
from implicit_l2o.games.latency import PolynomialLatency
from implicit_l2o.games.traffic_network import TrafficNetwork
from implicit_l2o.layer import ConvergenceError, OnFailure


@final
@dataclass(frozen=True, eq=False)
class PathFlows:
    """The paths that are used and how much flow takes each: the state of the solver, and its warm start.

    Args:
        origin, destination: zones of every pair with trips, sorted.
        first: `(pairs + 1,)`; the paths of pair `p` are `first[p]` to `first[p + 1] - 1`.
        path_first: `(paths + 1,)`; where the links of every path begin in `links`.
        links: of all paths, one path after the other, the last link of a path first.
        flow: `(paths,)`.
        edges: number of links of the network.
    """

    origin: Int[np.ndarray, " pairs"]
    destination: Int[np.ndarray, " pairs"]
    first: Int[np.ndarray, " pairs_and_1"] = field(repr=False)
    path_first: Int[np.ndarray, " paths_and_1"] = field(repr=False)
    links: Int[np.ndarray, " entries"] = field(repr=False)
    flow: Float[np.ndarray, " paths"] = field(repr=False)
    edges: int

    def path(self, k: int) -> Int[np.ndarray, " length"]:
        """The links of one path, from the origin on."""
        return self.links[self.path_first[k] : self.path_first[k + 1]][::-1]


class Pairs(NamedTuple):
    """The pairs of zones with trips, sorted by origin; `place` is that of the origin among the network's origins."""

    origin: np.ndarray
    destination: np.ndarray
    place: np.ndarray
    demand: np.ndarray


class Solved(NamedTuple):
    """What the compiled solver says."""

    flow: np.ndarray
    times: np.ndarray
    gap: float
    beckmann: float
    status: Status
    steps: int
    seconds: float
    trace: np.ndarray
    paths: PathFlows
    message: str


def outgoing(network: TrafficNetwork) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Where the links of each tail begin in a list sorted by tail, that list, their heads; all tails; first thru."""
    first = np.zeros(network.nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(network.tail, minlength=network.nodes), out=first[1:])
    order = np.argsort(network.tail, kind="stable")
    return first, order, network.head[order], network.tail, network.first_thru


class PathSolver:
    """A network that is ready to be solved, for any latencies and trips."""

    def __init__(self, network: TrafficNetwork, tolerance: float, max_steps: int) -> None:
        require_numba("user_equilibrium")
        if not (tolerance >= 0 and np.isfinite(tolerance)):
            raise ValueError(f"the relative gap needs a finite tolerance >= 0; got tolerance={tolerance}.")
        if max_steps < 0:
            raise ValueError(f"the equilibrium needs max_steps >= 0; got max_steps={max_steps}.")
        self.network, self.tolerance, self.max_steps = network, float(tolerance), int(max_steps)
        self.graph = outgoing(network)
        self.origins = network.origins

    def pairs(self, trips: np.ndarray) -> Pairs:
        """The pairs of a matrix of trips."""
        zones = self.network.zones
        trips = np.asarray(trips, dtype=np.float64)
        if trips.shape != (zones, zones):
            raise ValueError(f"{self.network.name} needs trips of shape {(zones, zones)}; got {trips.shape}.")
        if not (np.isfinite(trips).all() and (trips >= 0).all()):
            raise ValueError(f"trips are finite and >= 0; got {trips.min()} to {trips.max()}.")
        origin, destination = map(np.ascontiguousarray, np.nonzero(trips * (1.0 - np.eye(zones))))
        strangers = np.setdiff1d(origin, self.origins)
        if len(strangers):
            raise ValueError(
                f"trips leave zone {strangers[0]} (from 0), which is no origin of {self.network.name}; give a network with "
                "such trips (dataclasses.replace)."
            )
        return Pairs(origin, destination, np.searchsorted(self.origins, origin), trips[origin, destination])

    def checked(self, latency: PolynomialLatency) -> PolynomialLatency:
        """Latencies of this network, not a batch."""
        if latency.batch:
            raise ValueError(f"one solve takes the latencies of one network; got a batch of {latency.batch}.")
        if latency.edges != self.network.edges:
            raise ValueError(f"{self.network.name} has {self.network.edges} links; got latencies of {latency.edges}.")
        return latency

    def solve(self, latency: PolynomialLatency, pairs: Pairs, start: PathFlows | None) -> Solved:
        """The equilibrium of one member."""
        from implicit_l2o.games._assignment_kernel import equilibrate

        network, latency = self.network, self.checked(latency)
        paths = _started(start, pairs, network.edges)
        functions = (latency.constant, latency.coefficient, latency.scale, latency.power)
        trace = np.full(self.max_steps + 1, np.nan)
        begin = time.perf_counter()
        (first, path_first, links, path_flow), flow, gap, code, steps, lost = equilibrate(
            self.graph,
            self.origins,
            pairs.place,
            pairs.destination,
            pairs.demand,
            functions,
            paths,
            self.tolerance,
            self.max_steps,
            trace,
        )
        seconds = time.perf_counter() - begin
        status = Status(code)
        n = first[-1] if not status.failed else 0
        if status.failed:
            flow = np.full(network.edges, np.nan)
            first, times, beckmann = np.zeros_like(first), flow, np.nan
        else:
            times, beckmann = latency.value(flow), float(latency.integral(flow).sum())
        kept = PathFlows(
            pairs.origin,
            pairs.destination,
            first,
            path_first[: n + 1],
            links[: path_first[n]],
            path_flow[:n],
            network.edges,
        )
        said = f"{status.name}: {self.words(status, gap, steps, pairs, lost)}"
        return Solved(flow, times, gap, beckmann, status, steps, seconds, trace[: steps + 1], kept, said)

    def words(self, status: Status, gap: float, steps: int, pairs: Pairs, lost: int) -> str:
        """How a solve ended."""
        if status == Status.INFEASIBLE:
            return (
                f"no path leads from zone {pairs.origin[lost]} to zone {pairs.destination[lost]} (from 0), which have "
                f"{pairs.demand[lost]:g} trips."
            )
        if status == Status.NONFINITE:
            return "travel times grew beyond all numbers: look at scales, powers and trips."
        after = f"relative gap {gap:.1e} after {steps} steps, tolerance {self.tolerance:.1e}."
        return (
            after
            if status == Status.CONVERGED
            else f"{after} Raise max_steps or the tolerance; rounding ends at 1e-14."
        )

    def complain(self, text: str, statuses: Iterable[Status], on_failure: OnFailure) -> None:
        """Warn or raise where a solve missed the tolerance; a tolerance of zero asks for `max_steps`."""
        if on_failure not in ("warn", "raise", "ignore"):
            raise ValueError(f'on_failure must be "warn", "raise" or "ignore"; got {on_failure!r}.')
        fine = (Status.CONVERGED,) if self.tolerance > 0 else (Status.CONVERGED, Status.MAX_STEPS)
        if all(status in fine for status in statuses):
            return
        if on_failure == "raise":
            raise ConvergenceError(text)
        if on_failure == "warn":
            warnings.warn(text, ConvergenceWarning, stacklevel=3)

    def by_origin(self, paths: PathFlows) -> np.ndarray:
        """Link flows of every origin of the network."""
        from implicit_l2o.games._assignment_kernel import load_origins

        flow = np.zeros((len(self.origins), self.network.edges))
        place = np.searchsorted(self.origins, paths.origin)
        load_origins(place, paths.first, paths.path_first, paths.links, paths.flow, flow)
        return flow

    def potentials(self, times: np.ndarray) -> np.ndarray:
        """Times from every origin to all nodes on fastest paths."""
        from implicit_l2o.games._shortest_path_kernel import potentials

        out = np.full((len(self.origins), self.network.nodes), np.nan)
        if np.isfinite(times).all():
            first, out_edge, out_head, _, first_thru = self.graph
            potentials(self.origins, first, out_edge, out_head, first_thru, times, out)
        return out


def _started(start: PathFlows | None, pairs: Pairs, edges: int) -> tuple[np.ndarray, ...]:
    """Paths of the pairs with the shares of flow of a start; pairs that it lacks have no path yet."""
    if start is None:
        nobody = np.zeros(len(pairs.origin) + 1, dtype=np.int64)
        return nobody, np.zeros(1, dtype=np.int64), np.zeros(16, dtype=np.int32), np.zeros(0)
    if start.edges != edges:
        raise ValueError(f"the start is of a network of {start.edges} links; this one has {edges}.")
    same = np.array_equal(start.origin, pairs.origin) and np.array_equal(start.destination, pairs.destination)
    if not same:
        start = _matched(start, pairs)
    counts = np.diff(start.first)
    carried = np.zeros(len(counts))
    np.add.at(carried, np.repeat(np.arange(len(counts)), counts), start.flow)
    factor = np.divide(pairs.demand, carried, out=np.zeros_like(carried), where=carried > 0)
    return start.first, start.path_first, start.links, start.flow * np.repeat(factor, counts)


def _matched(start: PathFlows, pairs: Pairs) -> PathFlows:
    """The paths of a start for other pairs."""
    known = {ends: p for p, ends in enumerate(zip(start.origin.tolist(), start.destination.tolist(), strict=True))}
    chosen: list[int] = []
    counts = []
    for ends in zip(pairs.origin.tolist(), pairs.destination.tolist(), strict=True):
        p = known.get(ends)
        begin, end = (0, 0) if p is None else (int(start.first[p]), int(start.first[p + 1]))
        chosen += range(begin, end)
        counts.append(end - begin)
    lengths = np.diff(start.path_first)[chosen]
    links = [start.links[start.path_first[k] : start.path_first[k + 1]] for k in chosen]
    return PathFlows(
        pairs.origin,
        pairs.destination,
        np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        np.concatenate([np.zeros(0, dtype=np.int32), *links]).astype(np.int32),
        start.flow[chosen],
        start.edges,
    )
