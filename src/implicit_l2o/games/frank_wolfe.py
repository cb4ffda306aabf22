"""User equilibrium by Frank-Wolfe and its conjugate variants: the methods that planning software uses.

Sources: M. Frank and P. Wolfe, An algorithm for quadratic programming (1956); L. J. LeBlanc, E. K. Morlok and W. P.
Pierskalla (1975), for traffic; M. Mitradjieva and P. O. Lindberg, Transportation Science 47 (2013), for conjugate
directions.
"""

import time
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

import numpy as np
from jaxtyping import Float

from implicit_l2o._solution import Status
from implicit_l2o.games._path_solver import PathSolver
from implicit_l2o.games.latency import PolynomialLatency
from implicit_l2o.games.traffic_network import TrafficNetwork
from implicit_l2o.layer import OnFailure

Directions: TypeAlias = Literal["plain", "conjugate", "biconjugate"]

_MEMORY: dict[str, int] = {"plain": 0, "conjugate": 1, "biconjugate": 2}


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class LinkAssignment:
    """Link flows near the equilibrium; the attributes mean what they mean in `Assignment`.

    Attributes:
        flow, times: `(E,)`; NaN where the solve failed.
        gap, beckmann, status, steps, seconds, message: as in `Assignment`.
        trace: `(steps + 1,)` the gap before every step.
    """

    flow: Float[np.ndarray, " E"]
    times: Float[np.ndarray, " E"] = field(repr=False)
    gap: float
    beckmann: float
    status: Status
    steps: int
    seconds: float
    trace: Float[np.ndarray, " checks"] = field(repr=False)
    message: str


def frank_wolfe(
    network: TrafficNetwork,
    latency: PolynomialLatency | None = None,
    trips: Float[np.ndarray, "zones zones"] | None = None,
    *,
    directions: Directions = "biconjugate",
    tolerance: float = 1e-4,
    max_steps: int = 10_000,
    on_failure: OnFailure = "warn",
) -> LinkAssignment:
    """The user equilibrium by steps towards the flows of cheapest paths, with an exact line search.

    It needs no paths, and little memory, and slows down near the solution: a relative gap of 1e-4 is quick, 1e-6 is long.
    `user_equilibrium` is faster; this is what it is compared with.

    Args:
        network: as in `user_equilibrium`.
        latency: as in `user_equilibrium`.
        trips: as in `user_equilibrium`.
        directions: `"plain"`, or conjugate with respect to the Hessian to the last one, or to the last two.
        tolerance: of the relative gap, at least 0.
        max_steps: searches for shortest paths from all origins, at least 0.
        on_failure: as in `user_equilibrium`.

    Raises:
        ValueError: shapes do not fit, an option is outside its range.
        ConvergenceError: with `on_failure="raise"`.
        ModuleNotFoundError: numba is not installed.

    Example:
        >>> from implicit_l2o.data.traffic import toy_network
        >>> from implicit_l2o.games import frank_wolfe
        >>> frank_wolfe(toy_network(), tolerance=1e-6).flow.round(2)
        array([0.5 , 0.59, 0.5 , 0.1 , 0.41])
    """
    from implicit_l2o.games._frank_wolfe_kernel import descend

    if directions not in _MEMORY:
        raise ValueError(f"frank_wolfe has the directions {', '.join(map(repr, _MEMORY))}; got {directions!r}.")
    solver = PathSolver(network, tolerance, max_steps)
    latency = solver.checked(network.latency() if latency is None else latency)
    pairs = solver.pairs(network.trips if trips is None else trips)
    functions = (latency.constant, latency.coefficient, latency.scale, latency.power)
    trace = np.full(max_steps + 1, np.nan)
    begin = time.perf_counter()
    flow, gap, code, steps, lost = descend(
        solver.graph,
        solver.origins,
        pairs.place,
        pairs.destination,
        pairs.demand,
        functions,
        _MEMORY[directions],
        solver.tolerance,
        solver.max_steps,
        trace,
    )
    seconds = time.perf_counter() - begin
    status = Status(code)
    if status.failed:
        flow = np.full(network.edges, np.nan)
    message = f"{status.name}: {solver.words(status, gap, steps, pairs, lost)}"
    solver.complain(f"frank_wolfe of {network.name}: {message}", [status], on_failure)
    return LinkAssignment(
        flow=flow,
        times=flow if status.failed else latency.value(flow),
        gap=gap,
        beckmann=float("nan") if status.failed else float(latency.integral(flow).sum()),
        status=status,
        steps=steps,
        seconds=seconds,
        trace=trace[: steps + 1],
        message=message,
    )
