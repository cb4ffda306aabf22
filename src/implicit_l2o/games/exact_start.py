"""From exact equilibria to the fixed points of Davis-Yin that they are."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.games.flow_set import OriginFlows
from implicit_l2o.games.latency import PolynomialLatency
from implicit_l2o.games.polynomial_cost import PolynomialCost
from implicit_l2o.games.traffic_network import TrafficNetwork
from implicit_l2o.operators.base import Scalar


def flow_units(cost: PolynomialCost, flow: Float[Tensor, "1 E"], *, spread: float = 30.0) -> Float[np.ndarray, " E"]:
    """Units of the links in which Davis-Yin does well near typical flows: `unit^2 = v / (t(v) + v t'(v))`.

    In them the slopes of the costs and the sizes of flows and detours are of one order on all links.

    Args:
        cost: shared by all samples.
        flow: typical, for instance the mean over the training samples.
        spread: the units lie within this factor of their median.
    """
    time, slope = cost.apply(flow), cost.slope(flow)
    unit = (flow / (time + flow * slope).clamp_min(torch.finfo(flow.dtype).tiny)).sqrt()[0]
    middle = float(unit[unit > 0].median())
    return unit.clamp(middle / spread, middle * spread).detach().cpu().double().numpy()


def lift(
    flows: OriginFlows,
    x: Float[Tensor, "B K E"],
    times: Float[Tensor, "B E"],
    potentials: Float[Tensor, "B K nodes"],
    step: Scalar,
) -> Float[Tensor, "B K E"]:
    """The fixed point that reads out to an equilibrium, in units of the links: `z_k = x_k - step (F(v) - N^T pi_k)`.

    At it Davis-Yin's first point is `x_k`, which is positive only where the detour `F(v) - N^T pi_k` is 0, and its second is
    the projection of `x_k - step N^T pi_k`, which is `x_k` again.

    Args:
        flows: the links and origins.
        x: flows by origin.
        times: of the links at the total flow.
        potentials: shortest times from every origin; infinite at nodes that it does not reach.
        step: of the splitting.
    """
    finite = torch.isfinite(potentials)
    far = torch.where(finite, potentials, 0.0).amax(-1, keepdim=True)
    detour = times[:, None] - flows.potential_drops(torch.where(finite, potentials, far))
    unit = flows.units(x)
    return x / unit - _batch.expand(step, x) * unit * detour


@torch.no_grad()
def fixed_points(
    network: TrafficNetwork,
    flows: OriginFlows,
    cost: PolynomialCost,
    step: Scalar,
    like: Float[Tensor, "B E"],
    *,
    trips: Float[Tensor, "*B zones zones"] | None = None,
    closed: Bool[Tensor, "*B E"] | None = None,
    gap: float = 1e-6,
) -> Float[Tensor, "B K E"]:
    """The fixed points of all samples, by the compiled solver on the host.

    Args:
        network: gives what the samples have in common.
        flows: its links and origins.
        cost: of the links; below its limit.
        step: of the splitting.
        like: gives the batch, the dtype and the device.
        trips: instead of the network's, shared or per sample.
        closed: links without flow, shared or per sample.
        gap: relative gap to which the solver goes.
    """
    samples = _samples(network, cost, len(like), trips, closed)
    found = [_equilibrium(*sample, flows.origins, gap) for sample in samples]
    x = torch.as_tensor(np.stack([part[0] for part in found])).to(like)
    potentials = torch.as_tensor(np.stack([part[1] for part in found])).to(like)
    return lift(flows, x, cost.apply(x.sum(1)), potentials, step)


def _samples(
    network: TrafficNetwork, cost: PolynomialCost, batch: int, trips: Tensor | None, closed: Tensor | None
) -> Iterator[tuple[TrafficNetwork, PolynomialLatency, np.ndarray]]:
    """Each sample's network, without its closed links, the latencies of its links, and which links those are."""
    constant, scale = (_host(part, batch, 1) for part in (cost.constant, cost.scale))
    coefficient = _host(cost.coefficient, batch, 2)
    power = np.broadcast_to(np.asarray(cost.power), coefficient.shape[1:])
    table = None if trips is None else _host(trips, batch, 2)
    shut = None if closed is None else _host(closed, batch, 1).astype(bool)
    for i in range(batch):
        own = network if table is None else replace(network, trips=table[i])
        kept = np.ones(network.edges, dtype=bool) if shut is None else ~shut[i]
        if not kept.all():
            own = own.without(*np.flatnonzero(~kept).tolist())
        latency = PolynomialLatency(constant[i][kept], coefficient[i][kept], scale[i][kept], power[kept])
        yield own, latency, kept


def _equilibrium(
    network: TrafficNetwork, latency: PolynomialLatency, kept: np.ndarray, origins: np.ndarray, gap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Flows by origin and shortest times from the origins; a row of zeros for an origin without trips."""
    from implicit_l2o.games.assignment import user_equilibrium

    found = user_equilibrium(network, latency, tolerance=gap)
    flow = np.zeros((len(origins), len(kept)))
    potentials = np.zeros((len(origins), network.nodes))
    rows = np.searchsorted(origins, network.origins)
    flow[np.ix_(rows, np.flatnonzero(kept))] = found.origin_flow
    potentials[rows] = found.potentials
    return flow, potentials


def _host(value: Tensor, batch: int, least: int) -> np.ndarray:
    """A parameter as float64 on the host, one row for each sample."""
    array = value.detach().cpu().double().numpy()
    return np.broadcast_to(array, (batch, *array.shape[-least:]))
