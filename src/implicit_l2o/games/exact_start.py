"""From exact equilibria to the fixed points of Davis-Yin that they are."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.games.assignment import user_equilibria
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
    start: Any = None,
) -> Float[Tensor, "B K E"]:
    """The fixed points of all samples, by the compiled solver on the host; 0 where it fails.

    Args:
        network: gives what the samples have in common.
        flows: its links and origins.
        cost: of the links; below its limit.
        step: of the splitting.
        like: gives the batch, the dtype and the device.
        trips: instead of the network's, shared or per sample.
        closed: links without flow, shared or per sample.
        gap: relative gap to which the solver goes.
        start: paths to start from, where no link is closed.
    """
    batch, blocks = len(like), flows.blocks
    latency = latencies(cost, batch)
    table = None if trips is None else _host(trips, batch, 2)
    shut = np.zeros((batch, network.edges), bool) if closed is None else _host(closed, batch, 1).astype(bool)
    x, potentials = np.zeros((batch, blocks, network.edges)), np.zeros((batch, blocks, network.nodes))
    for pattern in np.unique(shut, axis=0):
        members = np.flatnonzero((shut == pattern).all(1))
        part, kept = latency[members], np.flatnonzero(~pattern)
        own = network.without(*np.flatnonzero(pattern).tolist())
        found = user_equilibria(
            own,
            PolynomialLatency(
                part.constant[:, kept], part.coefficient[:, kept], part.scale[:, kept], part.power[:, kept]
            ),
            None if table is None else table[members],
            tolerance=gap,
            start=start if len(kept) == network.edges else None,
            by_origin=True,
            on_failure="ignore",
            progress=False,
        )
        assert found.origin_flow is not None
        assert found.potentials is not None
        x[np.ix_(members, np.arange(blocks), kept)] = np.nan_to_num(found.origin_flow)
        potentials[members] = found.potentials
    flow = torch.as_tensor(x).to(like)
    return lift(flows, flow, cost.apply(flow.sum(1)), torch.as_tensor(potentials).to(like), step)


def latencies(cost: PolynomialCost, batch: int) -> PolynomialLatency:
    """The costs of all samples for the compiled solver."""
    coefficient = _host(cost.coefficient, batch, 2)
    power = np.broadcast_to(np.asarray(cost.power), coefficient.shape)
    return PolynomialLatency(_host(cost.constant, batch, 1), coefficient, _host(cost.scale, batch, 1), power)


def _host(value: Tensor, batch: int, least: int) -> np.ndarray:
    """A parameter as float64 on the host, one row for each sample."""
    array = value.detach().cpu().double().numpy()
    return np.broadcast_to(array, (batch, *array.shape[-least:]))
