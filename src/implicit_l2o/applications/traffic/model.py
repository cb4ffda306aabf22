"""From a context to link flows: `v(d)` such that `<F_theta(v; d), w - v> >= 0` for every flow `w` that carries the trips.

Two models learn `F`, and a layer finds the equilibrium. The structured one learns travel times that increase with the flow,
`t_e(v; d) = t0_e (1 + sum_k a_ek(d) (v / capacity_e)^k)`, `a >= 0`: free-flow times and posted capacities are known, how the
context changes the road is learned. So it can be asked about other trips and other roads. The other one learns an affine
operator, `F_e(v; d) = c_e(d) + s_e v`, whose constants mean nothing outside the contexts that it was trained on. The third
model is a network from the context to the flows, without a layer.

Source: S. W. Fung, H. Heaton, D. McKenzie, Q. Li and W. Yin, Three Operator Splitting for Learning to Predict Equilibria in
Convex Games, SIAM J. Math. Data Sci. (2024).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.data.traffic import TrafficContexts, public_contexts, toy_contexts
from implicit_l2o.games import PolynomialCost, PolynomialLatency, TrafficNetwork, user_equilibrium

_LEAST = 1e-3  # of the mean flow: what a link without flow counts as where a scale is needed
_SPREAD = 30.0  # units lie within this factor of their median
_SMALL = 1e-3  # where terms that the road's own law lacks start, relative to it
_LARGEST = 12.0  # of a learned exponent: what is beyond is a training gone astray


@final
@dataclass(frozen=True)
class Road:
    """A network, how contexts act on it, and its equilibrium without any context, which gives all scales.

    Args:
        name: as in `data.tntp.load`, or `"toy"` for four nodes and five links.
        folder: of the public collection; None downloads.
        seed: of how contexts act.

    Example:
        >>> from implicit_l2o.applications.traffic import Road
        >>> Road("toy").network.edges
        5
    """

    name: str = "toy"
    folder: str | None = None
    seed: int = 0

    @cached_property
    def contexts(self) -> TrafficContexts:
        """How contexts act."""
        if self.name == "toy":
            return toy_contexts(seed=self.seed)
        return public_contexts(self.name, self.folder, seed=self.seed)

    @property
    def network(self) -> TrafficNetwork:
        """The network."""
        return self.contexts.network

    @cached_property
    def flow(self) -> Float[np.ndarray, " E"]:
        """The equilibrium at the network's own capacities."""
        return user_equilibrium(self.network, self.latency, tolerance=1e-10).flow

    @cached_property
    def latency(self) -> PolynomialLatency:
        """The travel times at the network's own capacities."""
        return true_latency(self.contexts, self.network.capacity[None])[0]

    @cached_property
    def scale(self) -> Float[np.ndarray, " E"]:
        """A positive flow of every link's order."""
        return np.maximum(self.flow, _LEAST * self.flow.mean())

    @cached_property
    def unit(self) -> Float[np.ndarray, " E"]:
        """Of the links in the splitting: they make the travel times' slopes at this equilibrium equal."""
        time, slope = self.latency.value(self.scale), self.latency.slope(self.scale)
        unit = np.sqrt(self.scale / np.maximum(time + self.scale * slope, 1e-12))
        return np.clip(unit, np.median(unit) / _SPREAD, np.median(unit) * _SPREAD)


def true_latency(contexts: TrafficContexts, capacity: Float[np.ndarray, "B E"]) -> PolynomialLatency:
    """The travel times at given capacities, with the small slope of links that would take the same time at every flow."""
    middle = contexts.latency(np.zeros((1, contexts.dimension)))[0]
    return PolynomialLatency(
        np.broadcast_to(middle.constant, capacity.shape),
        np.broadcast_to(middle.coefficient, (*capacity.shape, 1)),
        np.where(contexts.connectors, middle.scale, capacity),
        np.broadcast_to(middle.power, (*capacity.shape, 1)),
    )


class ContextNetwork(nn.Module):
    """`d -> y`: a hidden layer or more beside a linear map, zero at the start.

    Args:
        model: of the contexts.
        outputs: entries of `y`.
        hidden: widths.
    """

    def __init__(self, model: TrafficContexts, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        contexts = model.dimension
        self.centre, self.spread = _standard(model)
        layers: list[nn.Module] = []
        width = contexts
        for size in hidden:
            layers += [nn.Linear(width, size), nn.SiLU()]
            width = size
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, outputs)
        self.skip = nn.Linear(contexts, outputs, bias=False)
        for part in (self.head.weight, self.head.bias, self.skip.weight):
            nn.init.zeros_(part)

    def forward(self, d: Float[Tensor, "B contexts"]) -> Float[Tensor, "B outputs"]:
        """`y`."""
        d = (d - self.centre) / self.spread
        return self.head(self.body(d)) + self.skip(d)


class LinkNetworks(nn.Module):
    """`d -> y_e`: a small network for every link, `y_e(d) = c_e + sum_j u_ej tanh(<w_ej, d> + b_ej)`, constant at the start.

    What a context does to a road is the road's own business; so `units (contexts + 2) + 1` numbers a link are enough, and
    they are learned as quickly on a large network as on a small one.

    Args:
        model: of the contexts.
        outputs: entries of `y`.
        units: for every entry of `y`.
    """

    def __init__(self, model: TrafficContexts, outputs: int, units: int) -> None:
        super().__init__()
        contexts = model.dimension
        self.centre, self.spread = _standard(model)
        self.inner = nn.Linear(contexts, outputs * units)
        nn.init.normal_(self.inner.weight, std=contexts**-0.5)
        nn.init.normal_(self.inner.bias, std=0.5)
        self.outer = nn.Parameter(torch.zeros(outputs, units))
        self.offset = nn.Parameter(
            torch.zeros(outputs, 1)
        )  # a matrix, so that weight decay holds it near the road's law

    def forward(self, d: Float[Tensor, "B contexts"]) -> Float[Tensor, "B outputs"]:
        """`y`."""
        inner = self.inner((d - self.centre) / self.spread).tanh()
        return (inner.unflatten(1, self.outer.shape) * self.outer).sum(-1) + self.offset.squeeze(-1)


@final
class LatencyNetwork(nn.Module):
    """`d -> F`: learned travel times that increase with the flow; at the start they are the network's own.

    Connectors, whose time would not depend on the flow, keep their own law.

    Args:
        road: the network.
        units: of the small network of every link.
        powers: of the terms, each at least 1.

    Raises:
        ValueError: the network's own power is not among them, or differs between its links.
    """

    def __init__(
        self,
        road: Road,
        *,
        units: int = 1,
        powers: Sequence[float] = (4.0,),
    ) -> None:
        super().__init__()
        network, own = road.network, road.latency
        flat = road.contexts.connectors
        powers = [float(p) for p in powers]
        known = set(own.power[~flat, 0].tolist())
        if len(known) != 1 or not known <= set(powers):
            raise ValueError(
                f"LatencyNetwork needs the one power of the network's links among powers; got {powers}, {known}."
            )
        self.powers: tuple[float, ...] = tuple(sorted({*powers, *([1.0] if flat.any() else [])}))
        fixed = np.zeros((network.edges, len(self.powers)))
        start = np.zeros_like(fixed)
        for k, p in enumerate(self.powers):
            if p in powers:
                start[~flat, k] = own.coefficient[~flat, 0] * (1.0 if p in known else _SMALL)
            if p == 1.0:
                fixed[flat, k] = own.coefficient[flat, 0]
        self.body = LinkNetworks(road.contexts, fixed.size, units)
        self.constant = _buffer(self, "constant", own.constant)
        self.capacity = _buffer(self, "capacity", own.scale)
        self.fixed, self.start = _buffer(self, "fixed", fixed), _buffer(self, "start", start)
        # Beyond all flows that are met: times go on along their tangents there, which the compiled solver knows nothing of.
        self.limit = _buffer(self, "limit", 2.0 * np.maximum(road.scale, own.scale))

    def forward(self, d: Float[Tensor, "B contexts"]) -> PolynomialCost:
        """The travel times, in float64."""
        factor = self.body(d).double().clamp(-_LARGEST, _LARGEST).exp().unflatten(1, self.start.shape)
        return PolynomialCost(
            constant=self.constant,
            coefficient=self.fixed + self.start * factor,
            scale=self.capacity,
            power=self.powers,
            limit=self.limit,
        )


@final
class AffineNetwork(nn.Module):
    """`d -> F`, `F_e(v; d) = c_e(d) + s_e v`: strongly monotone where `s > 0`, whatever is learned.

    At the start the operator's equilibrium is the network's.

    Args:
        road: the network.
        hidden: widths.
        share: of the slope term in the cost at the start, in (0, 1).

    Raises:
        ValueError: `share` is out of its range.
    """

    def __init__(
        self,
        road: Road,
        *,
        hidden: Sequence[int] = (64,),
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"AffineNetwork needs 0 < share < 1; got share={share}.")
        network = road.network
        self.body = ContextNetwork(road.contexts, network.edges, hidden)
        time = road.latency.value(road.flow)
        # A link that takes no time gets a little, or its flow would not be determined.
        time = np.maximum(time, _SMALL * time.mean())
        self.constant = _buffer(self, "constant", time * (1 - share * road.flow / road.scale))
        self.slope = _buffer(self, "slope", (share * time)[:, None])
        self.scale = _buffer(self, "scale", road.scale)

    def forward(self, d: Float[Tensor, "B contexts"]) -> PolynomialCost:
        """The operator, in float64."""
        factor = self.body(d).double().clamp(-_LARGEST, _LARGEST).exp()
        return PolynomialCost(constant=self.constant * factor, coefficient=self.slope, scale=self.scale, power=(1.0,))


@final
class FlowNetwork(nn.Module):
    """`d -> v`: link flows that are not negative, and no more is known of them; at the start they are the equilibrium's.

    Args:
        road: the network.
        hidden: widths.
    """

    def __init__(
        self,
        road: Road,
        *,
        hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.body = ContextNetwork(road.contexts, road.network.edges, hidden)
        self.flow = _buffer(self, "flow", road.flow)
        self.scale = _buffer(self, "scale", road.scale)

    def forward(self, d: Float[Tensor, "B contexts"]) -> Float[Tensor, "B E"]:
        """The flows, in float64."""
        return (self.flow + self.scale * self.body(d).double()).relu()


def _buffer(module: nn.Module, name: str, value: np.ndarray) -> Tensor:
    """Keep a constant in the module, for its device; not saved, as the road gives it again."""
    tensor = torch.as_tensor(np.array(value, dtype=np.float64))
    module.register_buffer(name, tensor, persistent=False)
    return tensor


def _standard(model: TrafficContexts) -> tuple[float, float]:
    """Mean and standard deviation of the entries of a context."""
    return 0.5 * (model.low + model.high), (model.high - model.low) / math.sqrt(12.0)
