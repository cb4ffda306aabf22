"""A road network with its demand.

Source of the model: J. G. Wardrop, Some theoretical aspects of road traffic research, Proc. Inst. Civil Engineers (1952).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit_l2o.games.latency import PolynomialLatency

_PER_LINK = ("tail", "head", "free_flow_time", "capacity", "b", "power", "fixed_cost")


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TrafficNetwork:
    """Directed links with the travel times of the Bureau of Public Roads, and trips between zones.

    A link takes `fixed_cost + free_flow_time (1 + b (v / capacity)^power)` at flow `v`. Nodes `0, ..., zones - 1` are the
    zones where trips begin and end. Parallel links and loops are allowed.

    Args:
        name: of the network.
        nodes: number of nodes.
        zones: number of zones, at most `nodes`.
        first_thru: nodes below it are centroids: a path may begin or end there but not pass through. 0 where there are none.
        tail: where every link begins.
        head: where it ends.
        free_flow_time: at least 0, in the network's unit of time.
        capacity: positive, in the unit of the trips.
        b: of the travel time, at least 0.
        power: of the travel time, 0 or at least 1.
        fixed_cost: tolls and distances in units of time, at least 0; 0 where it is left out.
        trips: from each zone (row) to each zone (column), at least 0. Trips within a zone stay off the network.
        coordinates: of the nodes, for drawings; None where nobody knows them.

    Raises:
        ValueError: shapes do not fit, a node does not exist, or a value is outside its range.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.games import TrafficNetwork
        >>> network = TrafficNetwork(
        ...     name="two roads", nodes=2, zones=2, first_thru=0, tail=np.array([0, 0]), head=np.array([1, 1]),
        ...     free_flow_time=np.array([1.0, 2.0]), capacity=np.ones(2), b=np.ones(2), power=np.ones(2),
        ...     trips=np.array([[0.0, 3.0], [0.0, 0.0]]),
        ... )
        >>> network.edges, network.origins, network.demand
        (2, array([0]), 3.0)
        >>> network.without(0).latency().value(np.array([3.0]))
        array([8.])
    """

    name: str
    nodes: int
    zones: int
    first_thru: int
    tail: Int[np.ndarray, " E"] = field(repr=False)
    head: Int[np.ndarray, " E"] = field(repr=False)
    free_flow_time: Float[np.ndarray, " E"] = field(repr=False)
    capacity: Float[np.ndarray, " E"] = field(repr=False)
    b: Float[np.ndarray, " E"] = field(repr=False)
    power: Float[np.ndarray, " E"] = field(repr=False)
    trips: Float[np.ndarray, "zones zones"] = field(repr=False)
    fixed_cost: Float[np.ndarray, " E"] = field(default_factory=lambda: np.zeros(0), repr=False)
    coordinates: Float[np.ndarray, "nodes 2"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.fixed_cost) == 0:
            object.__setattr__(self, "fixed_cost", np.zeros(len(self.tail)))
        for name in _PER_LINK:
            kind = np.int64 if name in ("tail", "head") else np.float64
            array = np.ascontiguousarray(getattr(self, name), dtype=kind)
            if array.shape != (len(self.tail),):
                raise ValueError(f"TrafficNetwork has {len(self.tail)} links by its tails; {name} is {array.shape}.")
            object.__setattr__(self, name, array)
        if not 1 <= self.zones <= self.nodes:
            raise ValueError(f"TrafficNetwork needs 1 <= zones <= nodes = {self.nodes}; got zones={self.zones}.")
        if not 0 <= self.first_thru <= self.nodes:
            raise ValueError(
                f"TrafficNetwork needs 0 <= first_thru <= nodes = {self.nodes}; got first_thru={self.first_thru}."
            )
        object.__setattr__(self, "trips", np.ascontiguousarray(self.trips, dtype=np.float64))
        if self.trips.shape != (self.zones, self.zones):
            raise ValueError(f"TrafficNetwork needs trips of shape {(self.zones,) * 2}; got {self.trips.shape}.")
        for name, permitted, holds in (
            ("tail", f"nodes 0 to {self.nodes - 1}", (self.tail >= 0) & (self.tail < self.nodes)),
            ("head", f"nodes 0 to {self.nodes - 1}", (self.head >= 0) & (self.head < self.nodes)),
            ("free_flow_time", "finite values >= 0", _not_negative(self.free_flow_time)),
            ("capacity", "finite values > 0", (self.capacity > 0) & np.isfinite(self.capacity)),
            ("b", "finite values >= 0", _not_negative(self.b)),
            ("power", "0 or finite values >= 1", (self.power == 0) | ((self.power >= 1) & np.isfinite(self.power))),
            ("fixed_cost", "finite values >= 0", _not_negative(self.fixed_cost)),
            ("trips", "finite values >= 0", _not_negative(self.trips)),
        ):
            if not holds.all():
                at = tuple(int(i) for i in np.argwhere(~holds)[0])
                where = f"link {at[0]}" if len(at) == 1 else f"zones {at}"
                raise ValueError(
                    f"TrafficNetwork needs as {name} {permitted}; got {getattr(self, name)[at]} at {where} (from 0)."
                )
        if self.coordinates is not None and self.coordinates.shape != (self.nodes, 2):
            raise ValueError(f"TrafficNetwork needs coordinates {(self.nodes, 2)}; got {self.coordinates.shape}.")

    @property
    def edges(self) -> int:
        """Number of links."""
        return len(self.tail)

    @cached_property
    def between(self) -> Float[np.ndarray, "zones zones"]:
        """The trips that use the network: those between different zones."""
        return self.trips * (1.0 - np.eye(self.zones))

    @property
    def origins(self) -> Int[np.ndarray, " origins"]:
        """Zones from which trips leave for other zones, ascending."""
        return np.flatnonzero(self.between.sum(1) > 0)

    @property
    def demand(self) -> float:
        """All trips between different zones."""
        return float(self.between.sum())

    def latency(self, capacity: Float[np.ndarray, "*batch E"] | None = None) -> PolynomialLatency:
        """The travel times as a function of the flow.

        Args:
            capacity: other capacities than the network's, positive; a batch of them gives a batch of latencies.
        """
        scale = self.capacity if capacity is None else np.asarray(capacity, dtype=np.float64)
        if scale.shape[-1:] != (self.edges,):
            raise ValueError(f"{self.name} has {self.edges} links; got capacities of shape {scale.shape}.")

        def spread(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, scale.shape)

        return PolynomialLatency(
            spread(self.free_flow_time + self.fixed_cost),
            spread(self.free_flow_time * self.b)[..., None],
            scale,
            spread(self.power)[..., None],
        )

    def without(self, *edges: int) -> "TrafficNetwork":
        """The network with some links closed: they are gone, and later links have smaller numbers.

        Raises:
            ValueError: a link does not exist.
        """
        for edge in edges:
            if not 0 <= edge < self.edges:
                raise ValueError(f"{self.name} has links 0 to {self.edges - 1}; got {edge}.")
        kept = self.kept(*edges)
        return replace(self, **{name: getattr(self, name)[kept] for name in _PER_LINK})

    def kept(self, *edges: int) -> Bool[np.ndarray, " E"]:
        """Which links stay when some are closed."""
        return ~np.isin(np.arange(self.edges), edges)

    def scaled(self, factor: float) -> "TrafficNetwork":
        """The network with all trips multiplied by a factor of at least 0."""
        if not (factor >= 0 and np.isfinite(factor)):
            raise ValueError(f"TrafficNetwork.scaled needs a finite factor >= 0; got {factor}.")
        return replace(self, trips=self.trips * factor)


def _not_negative(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & np.isfinite(values)
