"""User equilibrium of a road network: nobody can travel faster by another path.

Sources: J. G. Wardrop (1952); M. Beckmann, C. B. McGuire and C. B. Winsten, Studies in the Economics of Transportation
(1956); R. Jayakrishnan, W. K. Tsai, J. N. Prashker and S. Rajadhyaksha, A faster path-based algorithm for traffic
assignment, Transportation Research Record 1443 (1994).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float, Int

from implicit_l2o._solution import Status
from implicit_l2o.games._path_solver import PathFlows as PathFlows
from implicit_l2o.games._path_solver import PathSolver, Solved
from implicit_l2o.games.latency import PolynomialLatency
from implicit_l2o.games.traffic_network import TrafficNetwork
from implicit_l2o.layer import OnFailure

_CHUNK = 16  # contexts between two looks at the progress bar


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Assignment:
    """An equilibrium, and how well it was met.

    Attributes:
        flow: `(E,)` of every link; NaN where the solve failed.
        origin_flow: `(origins, E)` its part from every origin with demand, in the order of `TrafficNetwork.origins`.
        times: `(E,)` travel times at this flow.
        potentials: `(origins, nodes)` time of the fastest path to every node; infinite where there is none.
        gap: `(total time - time on fastest paths) / total time`, the relative gap.
        beckmann: Beckmann's objective, `sum_e integral_0^v_e t_e`.
        status: CONVERGED, MAX_STEPS, NONFINITE, or INFEASIBLE where a pair with trips has no path.
        steps: searches for shortest paths from all origins.
        seconds: of the solve.
        trace: `(steps + 1,)` the gap before every step.
        paths: a warm start for another solve.
        message: what happened, in words.
    """

    flow: Float[np.ndarray, " E"]
    origin_flow: Float[np.ndarray, "origins E"] = field(repr=False)
    times: Float[np.ndarray, " E"] = field(repr=False)
    potentials: Float[np.ndarray, "origins nodes"] = field(repr=False)
    gap: float
    beckmann: float
    status: Status
    steps: int
    seconds: float
    trace: Float[np.ndarray, " checks"] = field(repr=False)
    paths: PathFlows = field(repr=False)
    message: str


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Assignments:
    """Equilibria of a batch; the attributes are those of `Assignment` with a leading dimension.

    Attributes:
        flow: `(B, E)`; NaN where a solve failed.
        times: `(B, E)`.
        gap, beckmann, seconds: `(B,)`.
        status, steps: `(B,)` integers; `status` of `Status`.
        origin_flow: `(B, origins, E)` where it was asked for, else None.
        potentials: `(B, origins, nodes)` where they were asked for, else None.
    """

    flow: Float[np.ndarray, "B E"]
    times: Float[np.ndarray, "B E"]
    gap: Float[np.ndarray, " B"]
    beckmann: Float[np.ndarray, " B"]
    seconds: Float[np.ndarray, " B"]
    status: Int[np.ndarray, " B"]
    steps: Int[np.ndarray, " B"]
    origin_flow: Float[np.ndarray, "B origins E"] | None = None
    potentials: Float[np.ndarray, "B origins nodes"] | None = None

    @property
    def converged(self) -> np.ndarray:
        """Which members met the tolerance, `(B,)`."""
        return self.status == Status.CONVERGED


def user_equilibrium(
    network: TrafficNetwork,
    latency: PolynomialLatency | None = None,
    trips: Float[np.ndarray, "zones zones"] | None = None,
    *,
    tolerance: float = 1e-6,
    max_steps: int = 500,
    start: PathFlows | None = None,
    on_failure: OnFailure = "warn",
) -> Assignment:
    """The flows at which every used path of a pair is a fastest one: the minimum of Beckmann's objective.

        min_v sum_e integral_0^v_e t_e    over the flows that carry the trips

    Paths are found by Dijkstra's algorithm from every origin; flow moves between the paths of a pair by Newton's method for
    their difference, and by steps of Newton's method on all path flows where that alone is slow. No path passes through a
    centroid (a node below `first_thru`). A relative gap of 1e-10 and less can be met.

    Args:
        network: the roads and the trips.
        latency: the travel times; None is `network.latency()`.
        trips: other trips than the network's. Trips within a zone do not count.
        tolerance: of the relative gap, at least 0.
        max_steps: searches for shortest paths from all origins, at least 0.
        start: path flows of another equilibrium on the same links, `Assignment.paths`; they are scaled to the trips.
        on_failure: what to do besides the status where the tolerance is not met: `"warn"` (a `ConvergenceWarning`),
            `"raise"`, `"ignore"`.

    Raises:
        ValueError: shapes do not fit, an option is outside its range.
        ConvergenceError: with `on_failure="raise"`.
        ModuleNotFoundError: numba is not installed.

    Example:
        Braess's paradox: the road in the middle makes everybody slower, 92 instead of 83.

        >>> import numpy as np
        >>> from implicit_l2o.games import TrafficNetwork, user_equilibrium
        >>> network = TrafficNetwork(
        ...     name="Braess", nodes=4, zones=2, first_thru=0,
        ...     tail=np.array([0, 0, 2, 2, 3]), head=np.array([2, 3, 1, 3, 1]),
        ...     free_flow_time=np.array([1e-8, 50, 50, 10, 1e-8]), capacity=np.ones(5), power=np.ones(5),
        ...     b=np.array([1e9, 0.02, 0.02, 0.1, 1e9]), trips=np.array([[0.0, 6.0], [0.0, 0.0]]),
        ... )
        >>> with_road = user_equilibrium(network, tolerance=1e-12)
        >>> with_road.flow.round(6), with_road.potentials.round(6)
        (array([4., 2., 2., 2., 4.]), array([[ 0., 92., 40., 52.]]))
        >>> user_equilibrium(network.without(3)).potentials.round(6)
        array([[ 0., 83., 30., 53.]])
    """
    problem = PathSolver(network, tolerance, max_steps)
    latency = network.latency() if latency is None else latency
    trips = network.trips if trips is None else trips
    solved = problem.solve(latency, problem.pairs(trips), start)
    problem.complain(f"user_equilibrium of {network.name}: {solved.message}", [solved.status], on_failure)
    return Assignment(
        flow=solved.flow,
        origin_flow=problem.by_origin(solved.paths),
        times=solved.times,
        potentials=problem.potentials(solved.times),
        gap=solved.gap,
        beckmann=solved.beckmann,
        status=solved.status,
        steps=solved.steps,
        seconds=solved.seconds,
        trace=solved.trace,
        paths=solved.paths,
        message=solved.message,
    )


def user_equilibria(
    network: TrafficNetwork,
    latency: PolynomialLatency,
    trips: Float[np.ndarray, "*B zones zones"] | None = None,
    *,
    tolerance: float = 1e-6,
    max_steps: int = 500,
    start: PathFlows | None = None,
    by_origin: bool = False,
    workers: int = 1,
    on_failure: OnFailure = "warn",
    progress: bool = True,
) -> Assignments:
    """The equilibria of a batch of latencies, each from the same warm start, so that no member depends on another.

    Args:
        network: the roads.
        latency: `(B, E)`.
        trips: `(zones, zones)` for all or `(B, zones, zones)`; None is the network's.
        tolerance: as in `user_equilibrium`.
        max_steps: as in `user_equilibrium`.
        start: path flows to begin with; None takes those of the equilibrium at the mean of the latencies' arrays.
        by_origin: return the flows by origin and the potentials, too: `B origins (E + nodes)` numbers.
        workers: threads; the compiled solver holds no lock, so that as many members are solved at once.
        on_failure: as in `user_equilibrium`, for the batch.
        progress: show a bar after two seconds.

    Raises:
        ValueError: shapes do not fit, an option is outside its range.
        ConvergenceError: with `on_failure="raise"`.
        ModuleNotFoundError: numba is not installed.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.games import TrafficNetwork, user_equilibria
        >>> network = TrafficNetwork(
        ...     name="two roads", nodes=2, zones=2, first_thru=0, tail=np.array([0, 0]), head=np.array([1, 1]),
        ...     free_flow_time=np.ones(2), capacity=np.ones(2), b=np.ones(2), power=np.ones(2),
        ...     trips=np.array([[0.0, 3.0], [0.0, 0.0]]),
        ... )
        >>> user_equilibria(network, network.latency(np.array([[1.0, 1.0], [2.0, 1.0]]))).flow.round(6)
        array([[1.5, 1.5],
               [2. , 1. ]])
    """
    problem = PathSolver(network, tolerance, max_steps)
    if len(latency.batch) != 1:
        raise ValueError(f"user_equilibria takes latencies of shape (B, E); got the batch shape {latency.batch}.")
    if workers < 1:
        raise ValueError(f"user_equilibria needs workers >= 1; got workers={workers}.")
    size = latency.batch[0]
    trips = network.trips if trips is None else np.asarray(trips, dtype=np.float64)
    if trips.ndim == 3 and len(trips) != size:
        raise ValueError(f"user_equilibria got {size} latencies and {len(trips)} matrices of trips.")
    shared = problem.pairs(trips) if trips.ndim == 2 else None
    if start is None and size:
        arrays = (latency.constant, latency.coefficient, latency.scale, latency.power)
        middle = PolynomialLatency(*(array.mean(0) for array in arrays))
        mean_trips = problem.pairs(trips if trips.ndim == 2 else trips.mean(0))
        start = problem.solve(middle, mean_trips, None).paths

    origin_flow = np.empty((size, len(network.origins), network.edges)) if by_origin else None
    potentials = np.empty((size, len(network.origins), network.nodes)) if by_origin else None

    # A batch does not keep the paths.
    none = np.zeros(0, dtype=np.int64)
    nothing = PathFlows(none, none, none, none, none, np.zeros(0), network.edges)

    def solve(members: range) -> list[Solved]:
        done = []
        for i in members:
            one = problem.solve(latency[i], problem.pairs(trips[i]) if shared is None else shared, start)
            if origin_flow is not None and potentials is not None:
                origin_flow[i] = problem.by_origin(one.paths)
                potentials[i] = problem.potentials(one.times)
            done.append(one._replace(paths=nothing, trace=one.trace[:0]))
        return done

    chunks = [range(first, min(first + _CHUNK, size)) for first in range(0, size, _CHUNK)]
    solved = _run(solve, chunks, size, workers, f"equilibria of {network.name}", progress)
    result = Assignments(
        flow=np.array([one.flow for one in solved]).reshape(size, network.edges),
        times=np.array([one.times for one in solved]).reshape(size, network.edges),
        gap=np.array([one.gap for one in solved], dtype=np.float64),
        beckmann=np.array([one.beckmann for one in solved], dtype=np.float64),
        seconds=np.array([one.seconds for one in solved], dtype=np.float64),
        status=np.array([int(one.status) for one in solved], dtype=np.int64),
        steps=np.array([one.steps for one in solved], dtype=np.int64),
        origin_flow=origin_flow,
        potentials=potentials,
    )
    bad = np.flatnonzero(~result.converged)
    if len(bad):
        text = f"{len(bad)} of {size} failed; member {bad[0]}: {solved[bad[0]].message}"
        problem.complain(f"user_equilibria of {network.name}: {text}", [one.status for one in solved], on_failure)
    return result


def _run(
    solve: Callable[[range], list[Solved]], chunks: list[range], total: int, workers: int, label: str, progress: bool
) -> list[Solved]:
    from tqdm import tqdm

    found: list[Solved] = []
    with (
        tqdm(total=total, desc=label, unit="solve", delay=2, leave=False, disable=not progress) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for done in map(solve, chunks) if workers == 1 else pool.map(solve, chunks):
            found += done
            bar.update(len(done))
    return found
