"""How far flows are from an equilibrium and from carrying the trips, in NumPy and without the solver's kernels.

All functions take any leading dimensions as a batch.
"""

import numpy as np
from jaxtyping import Float

from implicit_l2o.games.latency import PolynomialLatency
from implicit_l2o.games.traffic_network import TrafficNetwork


def total_travel_time(
    flow: Float[np.ndarray, "*batch E"], times: Float[np.ndarray, "*batch E"]
) -> Float[np.ndarray, "*batch"]:
    """The time that all travellers spend together, `sum_e v_e t_e`."""
    return np.asarray((flow * times).sum(-1))


def beckmann(latency: PolynomialLatency, flow: Float[np.ndarray, "*flows E"]) -> Float[np.ndarray, "*batch"]:
    """Beckmann's objective, whose minimum is the equilibrium, `sum_e integral_0^v_e t_e`."""
    return np.asarray(latency.integral(flow).sum(-1))


def shortest_times(
    network: TrafficNetwork, times: Float[np.ndarray, "*batch E"]
) -> Float[np.ndarray, "*batch origins nodes"]:
    """Times from every origin to all nodes on fastest paths, by Bellman's equation; infinite where there is no path.

    No path passes through a centroid.

    Args:
        network: the roads; its origins are those with trips.
        times: of the links, at least 0.

    Raises:
        ValueError: another number of links, or a time that is negative or NaN.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.games import TrafficNetwork, gaps
        >>> network = TrafficNetwork(
        ...     name="a road", nodes=2, zones=2, first_thru=0, tail=np.array([0]), head=np.array([1]),
        ...     free_flow_time=np.ones(1), capacity=np.ones(1), b=np.ones(1), power=np.ones(1),
        ...     trips=np.array([[0.0, 3.0], [0.0, 0.0]]),
        ... )
        >>> gaps.shortest_times(network, np.array([[2.0], [5.0]]))[:, 0, 1]
        array([2., 5.])
    """
    times = np.asarray(times, dtype=np.float64)
    _check(network, times, "times")
    if not (times >= 0).all():
        raise ValueError(f"shortest_times needs times >= 0; got {times.min()}.")
    origins = network.origins
    order = np.argsort(network.head, kind="stable")
    tail, head = network.tail[order], network.head[order]
    heads, begins = np.unique(head, return_index=True)
    by_head = times[..., None, order]
    found = np.full((*times.shape[:-1], len(origins), network.nodes), np.inf)
    here = np.arange(len(origins))
    found[..., here, origins] = 0.0
    closed = np.tile(np.arange(network.nodes) < network.first_thru, (len(origins), 1))
    closed[here, origins] = False
    if not network.edges or not len(origins):
        return found
    while True:
        through = np.where(closed, np.inf, found)[..., tail] + by_head
        better = np.minimum(found[..., heads], np.minimum.reduceat(through, begins, axis=-1))
        if (better >= found[..., heads]).all():
            return found
        found[..., heads] = better


def relative_gap(
    network: TrafficNetwork,
    flow: Float[np.ndarray, "*batch E"],
    times: Float[np.ndarray, "*batch E"],
    trips: Float[np.ndarray, "zones zones"] | None = None,
) -> Float[np.ndarray, "*batch"]:
    """Wardrop's gap, `(total time - time of all trips on fastest paths) / total time`: 0 exactly at equilibrium.

    It judges flows that carry the trips; for others it may be negative. Look at `conservation_violation` as well.

    Args:
        network: the roads and the trips.
        flow: of the links.
        times: at this flow, `latency.value(flow)`.
        trips: other trips than the network's, from the same origins.

    Raises:
        ValueError: shapes do not fit, or a time is negative or NaN.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.games import TrafficNetwork, gaps
        >>> network = TrafficNetwork(
        ...     name="two roads", nodes=2, zones=2, first_thru=0, tail=np.array([0, 0]), head=np.array([1, 1]),
        ...     free_flow_time=np.ones(2), capacity=np.ones(2), b=np.ones(2), power=np.ones(2),
        ...     trips=np.array([[0.0, 2.0], [0.0, 0.0]]),
        ... )
        >>> flow = np.array([[1.0, 1.0], [1.5, 0.5]])
        >>> gaps.relative_gap(network, flow, network.latency().value(flow)).round(3)
        array([0.   , 0.333])
    """
    between = network.between if trips is None else np.asarray(trips) * (1.0 - np.eye(network.zones))
    _check(network, flow, "flows")
    fastest = shortest_times(network, times)[..., : network.zones]
    demand = between[network.origins]
    cheapest = np.where(demand > 0, demand * np.where(demand > 0, fastest, 0.0), 0.0).sum((-2, -1))
    total = total_travel_time(flow, times)
    return np.asarray(np.divide(total - cheapest, total, out=np.zeros_like(total - cheapest), where=total != 0))


def conservation_violation(
    network: TrafficNetwork, flow: Float[np.ndarray, "*batch E"], trips: Float[np.ndarray, "zones zones"] | None = None
) -> Float[np.ndarray, "*batch"]:
    """The largest imbalance of a node, `|inflow - outflow - (trips that end - trips that begin there)|`, per trip.

    Args:
        network: the roads and the trips.
        flow: of the links, all origins together.
        trips: other trips than the network's.

    Raises:
        ValueError: another number of links.
    """
    between = network.between if trips is None else np.asarray(trips) * (1.0 - np.eye(network.zones))
    wanted = np.zeros(network.nodes)
    wanted[: network.zones] = between.sum(0) - between.sum(1)
    imbalance = np.abs(_balance(network, flow) - wanted).max(-1)
    return np.asarray(imbalance / max(float(between.sum()), np.finfo(float).tiny))


def origin_violation(
    network: TrafficNetwork,
    origin_flow: Float[np.ndarray, "*batch origins E"],
    trips: Float[np.ndarray, "zones zones"] | None = None,
) -> Float[np.ndarray, "*batch"]:
    """The largest imbalance of a node in the flow of any one origin, per trip; see `conservation_violation`.

    Raises:
        ValueError: another number of links or origins.
    """
    between = network.between if trips is None else np.asarray(trips) * (1.0 - np.eye(network.zones))
    origins = network.origins
    if origin_flow.shape[-2] != len(origins):
        raise ValueError(f"{network.name} has {len(origins)} origins; got flows of {origin_flow.shape[-2]}.")
    wanted = np.zeros((len(origins), network.nodes))
    wanted[:, : network.zones] = between[origins]
    wanted[np.arange(len(origins)), origins] -= between[origins].sum(1)
    imbalance = np.abs(_balance(network, origin_flow) - wanted).max((-2, -1))
    return np.asarray(imbalance / max(float(between.sum()), np.finfo(float).tiny))


def _balance(network: TrafficNetwork, flow: np.ndarray) -> np.ndarray:
    """Inflow minus outflow of every node."""
    flow = np.asarray(flow, dtype=np.float64)
    _check(network, flow, "flows")
    balance = np.zeros((network.nodes, *flow.shape[:-1]))
    columns = np.moveaxis(flow, -1, 0)
    np.add.at(balance, network.head, columns)
    np.subtract.at(balance, network.tail, columns)
    return np.moveaxis(balance, 0, -1)


def _check(network: TrafficNetwork, values: np.ndarray, what: str) -> None:
    if values.shape[-1:] != (network.edges,):
        raise ValueError(f"{network.name} has {network.edges} links; got {what} of shape {values.shape}.")
