"""Contexts that change the capacities of road networks, and so their equilibria.

Every context `d` (weather, hour, road works) is seen, the capacities are not. `data.equilibria` solves them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, final, get_args

import numpy as np
from jaxtyping import Float

from implicit_l2o.data.tntp import load
from implicit_l2o.games import PolynomialLatency, TrafficNetwork

Response: TypeAlias = Literal["smooth", "clamped"]

STRENGTHS = MappingProxyType(
    {
        "SiouxFalls": 0.3,
        "Eastern-Massachusetts": 0.45,
        "Berlin-Friedrichshain": 0.45,
        "Berlin-Tiergarten": 0.7,
        "Anaheim": 0.8,
    }
)
"""How strongly contexts act on the five networks: link flows vary by 11 to 16 % of their size (root mean square)."""

DIMENSION = 10
"""Numbers in a context."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TrafficContexts:
    """Contexts `d`, independent and uniform in a box, that change the capacities of a network.

    `capacity_e(d) = capacity_e exp(strength tanh(<w_e, d>))` where the response is smooth, so between the network's capacity
    times `exp(-strength)` and times `exp(strength)`; `capacity_e (1 + clamp(<w_e, d>, -strength, strength))` where it is
    clamped.

    Links that take the same time at every flow leave the equilibrium's flows undetermined, so their time becomes
    `t_e(v) = constant_e + connector_slope * m * v / n`, where `m` is the mean free-flow time of the links that take time,
    and `n` the mean number of trips that leave a zone. This makes the flows of all links unique.

    Args:
        network: the roads.
        weights: `(E, dimension)`, one row `w_e` a link.
        strength: of the response, positive; below 1 where it is clamped.
        low: the least value of every number of a context.
        high: the largest.
        response: `"smooth"` or `"clamped"`.
        connector_slope: positive.

    Raises:
        ValueError: shapes do not fit or an option is outside its range.

    Example:
        >>> from implicit_l2o.data.traffic import toy_contexts
        >>> toy = toy_contexts()
        >>> d = toy.draw(3, seed=0)
        >>> d.shape, toy.capacities(d).shape, toy.latency(d).batch
        ((3, 5), (3, 5), (3,))
    """

    network: TrafficNetwork
    weights: Float[np.ndarray, "E dimension"] = field(repr=False)
    strength: float
    low: float = -1.0
    high: float = 1.0
    response: Response = "smooth"
    connector_slope: float = 0.01

    def __post_init__(self) -> None:
        if self.response not in get_args(Response):
            raise ValueError(f"TrafficContexts has the responses {get_args(Response)}; got {self.response!r}.")
        if self.weights.ndim != 2 or len(self.weights) != self.network.edges:
            raise ValueError(
                f"TrafficContexts needs weights ({self.network.edges}, dimension); got {self.weights.shape}."
            )
        most = 1.0 if self.response == "clamped" else np.inf
        if not 0 < self.strength < most:
            raise ValueError(f"TrafficContexts needs 0 < strength < {most}; got strength={self.strength}.")
        if not self.low < self.high:
            raise ValueError(f"TrafficContexts needs low < high; got low={self.low}, high={self.high}.")
        if not self.connector_slope > 0:
            raise ValueError(f"TrafficContexts needs connector_slope > 0; got {self.connector_slope}.")

    @property
    def dimension(self) -> int:
        """Numbers in a context."""
        return self.weights.shape[1]

    @property
    def connectors(self) -> np.ndarray:
        """Links that take the same time at every flow in the network's files, `(E,)`."""
        return self.network.latency().constant_links

    def draw(self, count: int, *, seed: int | tuple[int, ...]) -> Float[np.ndarray, "count dimension"]:
        """Contexts; fewer of the same seed are the first of more."""
        if count < 0:
            raise ValueError(f"TrafficContexts.draw needs count >= 0; got count={count}.")
        return np.random.default_rng(seed).uniform(self.low, self.high, (count, self.dimension))

    def capacities(self, d: Float[np.ndarray, "B dimension"]) -> Float[np.ndarray, "B E"]:
        """The capacities in every context."""
        if d.ndim != 2 or d.shape[1] != self.dimension:
            raise ValueError(f"these contexts have the shape (B, {self.dimension}); got {d.shape}.")
        raised = d @ self.weights.T
        if self.response == "clamped":
            return self.network.capacity * (1.0 + np.clip(raised, -self.strength, self.strength))
        return self.network.capacity * np.exp(self.strength * np.tanh(raised))

    def latency(self, d: Float[np.ndarray, "B dimension"]) -> PolynomialLatency:
        """The travel times in every context, a batch."""
        plain = self.network.latency(self.capacities(d))
        coefficient, scale, power = plain.coefficient.copy(), plain.scale.copy(), plain.power.copy()
        flat = self.connectors
        if flat.any():
            takes_time = self.network.free_flow_time[~flat]
            coefficient[:, flat, 0] = self.connector_slope * (takes_time.mean() if takes_time.size else 1.0)
            scale[:, flat] = max(self.network.demand, 1e-300) / self.network.zones
            power[:, flat] = 1.0
            return PolynomialLatency(plain.value(np.zeros(self.network.edges)), coefficient, scale, power)
        return plain


def contexts(
    network: TrafficNetwork, *, strength: float | None = None, dimension: int = DIMENSION, seed: int = 0
) -> TrafficContexts:
    """The context model of a network: smooth, with `d` uniform in [-1, 1]^10 and rows `w_e` of random direction.

    The rows have the length `sqrt(3)`, so that `<w_e, d>` has variance 1 for every link.

    Args:
        network: the roads.
        strength: None takes that of `STRENGTHS`, else 0.5.
        dimension: numbers in a context, at least 1.
        seed: of the weights.

    Raises:
        ValueError: an option is outside its range.

    Example:
        >>> from implicit_l2o.data.traffic import contexts, toy_network
        >>> contexts(toy_network()).weights.shape
        (5, 10)
    """
    if dimension < 1:
        raise ValueError(f"contexts needs dimension >= 1; got dimension={dimension}.")
    weights = np.random.default_rng((seed, 0)).normal(size=(network.edges, dimension))
    weights *= np.sqrt(3.0) / np.linalg.norm(weights, axis=1, keepdims=True)
    strength = STRENGTHS.get(network.name, 0.5) if strength is None else strength
    return TrafficContexts(network=network, weights=weights, strength=strength)


def public_contexts(name: str, folder: str | Path | None = None, *, seed: int = 0) -> TrafficContexts:
    """The context model of a network of the public collection; `folder` as in `data.tntp.load`."""
    return contexts(load(name, folder), seed=seed)


def toy_network() -> TrafficNetwork:
    """Four nodes, five links, and one trip from the first node to the last.

    Source: H. Heaton, D. McKenzie, Q. Li, S. Wu Fung, S. Osher and W. Yin, Learn to predict equilibria via fixed point
    networks, arXiv:2106.00906, the network of its tutorial.

    Example:
        >>> from implicit_l2o.data.traffic import toy_network
        >>> from implicit_l2o.games import user_equilibrium
        >>> user_equilibrium(toy_network(), tolerance=1e-12).flow.round(4)
        array([0.4963, 0.5944, 0.5037, 0.0981, 0.4056])
    """
    trips = np.zeros((4, 4))
    trips[0, 3] = 1.0
    return TrafficNetwork(
        name="toy",
        nodes=4,
        zones=4,
        first_thru=0,
        tail=np.array([0, 2, 0, 1, 1]),
        head=np.array([2, 3, 1, 2, 3]),
        free_flow_time=np.array([1.0, 2.0, 1.414236, 1.732051, 1.0]),
        capacity=np.array([0.4, 0.8, 0.8, 0.6, 0.3]),
        b=np.ones(5),
        power=np.full(5, 4.0),
        trips=trips,
        coordinates=np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [2.0, 1.0]]),
    )


def toy_contexts(*, seed: int = 0) -> TrafficContexts:
    """The contexts of the toy network: `d` uniform in [0, 1/4]^5, capacities times `1 + clamp(<w_e, d>, -0.4, 0.4)`.

    The weights are uniform in [0, 1], those of `d_1` ten times as large and negative: it is the rain.

    Args:
        seed: of the weights.

    Example:
        >>> from implicit_l2o.data.traffic import toy_contexts
        >>> toy_contexts().response
        'clamped'
    """
    weights = np.random.default_rng((seed, 0)).uniform(size=(5, 5))
    weights[:, 0] *= -10.0
    return TrafficContexts(network=toy_network(), weights=weights, strength=0.4, low=0.0, high=0.25, response="clamped")
