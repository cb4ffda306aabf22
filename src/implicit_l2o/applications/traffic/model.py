"""From a context to link flows: `v(d)` such that `<F_theta(v; d), w - v> >= 0` for every flow `w` that carries the trips.

Two models learn `F`, and a layer finds the equilibrium. The structured one learns travel times that increase with the flow,
`t_e(v; d) = t0_e (1 + sum_k a_ek(d) (v / capacity_e)^k)`, `a >= 0`: free-flow times and posted capacities are known, how the
context changes the road is learned. So it can be asked about other trips and other roads. The other one learns an affine
operator, `F_e(v; d) = c_e(d) + s_e v`, whose constants mean nothing outside the contexts that it was trained on. The third
model is a network from the context to the flows, without a layer.

Source: S. W. Fung, H. Heaton, D. McKenzie, Q. Li and W. Yin, Three Operator Splitting for Learning to Predict Equilibria in
Convex Games, SIAM J. Math. Data Sci. (2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.data.tntp import load
from implicit_l2o.games import PolynomialCost, TrafficNetwork, flow_units, user_equilibrium

_LEAST = 1e-3  # of the mean flow: what a link without flow counts as where a scale is needed
_SMALL = 1e-3  # where terms that the road's own law lacks start, relative to it
_LARGEST = 12.0  # of a learned exponent: what is beyond is a training gone astray


@final
@dataclass(frozen=True)
class Road:
    """A network and its equilibrium without any context, which gives all scales and starting points.

    Args:
        name: as in `data.tntp.load`, or `"toy"` for four nodes and five links.
        folder: of the public collection; None downloads.

    Example:
        >>> from implicit_l2o.applications.traffic import Road
        >>> Road("toy").network.edges
        5
    """

    name: str = "toy"
    folder: str | None = None

    @cached_property
    def network(self) -> TrafficNetwork:
        """The network."""
        return toy_network() if self.name == "toy" else load(self.name, self.folder)

    @cached_property
    def flow(self) -> Float[np.ndarray, " E"]:
        """Its equilibrium."""
        return user_equilibrium(self.network, tolerance=1e-8).flow

    @cached_property
    def scale(self) -> Float[np.ndarray, " E"]:
        """A positive flow of every link's order."""
        return np.maximum(self.flow, _LEAST * self.flow.mean())

    @cached_property
    def unit(self) -> Float[np.ndarray, " E"]:
        """Of the links in the splitting."""
        latency = self.network.latency()
        cost = PolynomialCost(
            constant=torch.as_tensor(latency.constant.copy()),
            coefficient=torch.as_tensor(latency.slope(self.scale) * self.scale)[:, None],
            scale=torch.as_tensor(self.scale),
            power=(1.0,),
        )
        return flow_units(cost, torch.as_tensor(self.scale)[None])


class ContextNetwork(nn.Module):
    """`d -> y`: a hidden layer or more beside a linear map, zero at the start.

    Args:
        contexts: entries of `d`.
        outputs: entries of `y`.
        hidden: widths.
        centre, spread: of the entries of `d`.
    """

    def __init__(
        self, contexts: int, outputs: int, hidden: Sequence[int], *, centre: float = 0.0, spread: float = 1.0
    ) -> None:
        super().__init__()
        self.centre, self.spread = centre, spread
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


@final
class LatencyNetwork(nn.Module):
    """`d -> F`: learned travel times that increase with the flow; at the start they are the network's own.

    Where the road's own law has no term, as on links whose time does not depend on the flow, none is learned.

    Args:
        road: the network.
        contexts: entries of `d`.
        hidden: widths.
        powers: of the terms, each at least 1.
        centre, spread: of the entries of `d`.

    Raises:
        ValueError: the network's own power is not among them, or differs between its links.
    """

    def __init__(
        self,
        road: Road,
        *,
        contexts: int,
        hidden: Sequence[int] = (64,),
        powers: Sequence[float] = (4.0,),
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        network = road.network
        self.powers = tuple(float(p) for p in powers)
        own = set(network.power[network.b > 0].tolist())
        if len(own) != 1 or not own <= set(self.powers):
            raise ValueError(
                f"LatencyNetwork needs the one power of the network's links among powers; got {powers}, {own}."
            )
        self.body = ContextNetwork(contexts, network.edges * len(self.powers), hidden, centre=centre, spread=spread)
        share = torch.tensor([1.0 if p in own else _SMALL for p in self.powers], dtype=torch.float64)
        fixed = np.zeros(network.edges) if network.fixed_cost is None else network.fixed_cost
        self.constant = _buffer(self, "constant", network.free_flow_time + fixed)
        self.capacity = _buffer(self, "capacity", network.capacity)
        self.start = _buffer(self, "start", (network.free_flow_time * network.b)[:, None] * share.numpy())
        self.limit = _buffer(self, "limit", 2.0 * road.scale)

    def forward(self, d: Float[Tensor, "B contexts"]) -> PolynomialCost:
        """The travel times, in float64."""
        factor = self.body(d).double().clamp(-_LARGEST, _LARGEST).exp().unflatten(1, self.start.shape)
        return PolynomialCost(
            constant=self.constant,
            coefficient=self.start * factor,
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
        contexts: entries of `d`.
        hidden: widths.
        share: of the slope term in the cost at the start, in (0, 1).
        centre, spread: of the entries of `d`.

    Raises:
        ValueError: `share` is out of its range.
    """

    def __init__(
        self,
        road: Road,
        *,
        contexts: int,
        hidden: Sequence[int] = (64,),
        share: float = 0.5,
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"AffineNetwork needs 0 < share < 1; got share={share}.")
        network = road.network
        self.body = ContextNetwork(contexts, network.edges, hidden, centre=centre, spread=spread)
        time = network.latency().value(road.flow)
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
        contexts: entries of `d`.
        hidden: widths.
        centre, spread: of the entries of `d`.
    """

    def __init__(
        self,
        road: Road,
        *,
        contexts: int,
        hidden: Sequence[int] = (64,),
        centre: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        self.body = ContextNetwork(contexts, road.network.edges, hidden, centre=centre, spread=spread)
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
