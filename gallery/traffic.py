"""Traffic that nobody steers: road conditions to equilibrium flows, learned from flows, and asked about a closed bridge.

python gallery/traffic.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import implicit_l2o as il2o
from implicit_l2o.applications.traffic import Road
from implicit_l2o.applications.traffic.certificates import certificates
from implicit_l2o.applications.traffic.model import LatencyNetwork
from implicit_l2o.games import EquilibriumLayer, TrafficNetwork, user_equilibria
from implicit_l2o.losses import fenchel_young
from implicit_l2o.networks import MLP

GREY, BLUE, RED = "#bbbbbb", "#0072b2", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. Four places, five roads, everybody wants from the first place to the last. Rain and works (five numbers) change what
    #    the roads can carry; nobody tells us how. We see conditions and the flows that settle.
    road = Road("toy")
    network = road.network

    def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        d = road.contexts.draw(count, seed=seed)
        flow = user_equilibria(network, road.contexts.latency(d), tolerance=1e-9).flow
        return torch.from_numpy(d).float(), torch.from_numpy(np.asarray(flow))

    (seen, flows), (new, settled) = draw(30 if quick else 60, 1), draw(200, 2)

    # 2. The model: travel times that increase with the flow, whatever the weights; the layer finds the flows at which no
    #    traveller has a quicker way. The opponent maps conditions to flows.
    times, layer = LatencyNetwork(road, units=2), EquilibriumLayer(network, exact=True)
    black_box = MLP((5, 32, 5))

    @torch.no_grad()
    def error(v: torch.Tensor) -> float:
        return 100 * float((v - settled).norm() / settled.norm())

    with torch.no_grad():
        untrained = error(layer(times(new)).x)

    # 3. Train ours so that the observed flow is optimal for the learned congestion (a convex loss, which needs an
    #    equilibrium and no backward mode), and the opponent by the squared error of its flows.
    optimizer = torch.optim.Adam(times.parameters(), lr=5e-2)
    for _ in range(150 if quick else 500):
        cost = times(seen)
        loss = fenchel_young(cost, layer.exact_flows(cost).x, flows).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer = torch.optim.Adam(black_box.parameters(), lr=1e-2)
    for _ in range(150 if quick else 1000):
        optimizer.zero_grad()
        (black_box(seen) - flows).square().mean().backward()
        optimizer.step()

    # 4. Certificates: the trips are carried, no flow is negative, and under the predicted times no traveller can save
    #    more than a little (Wardrop's condition). A flow that only looks right fails.
    with torch.no_grad():
        cost = times(new)
        inference, guessed = layer.inference(cost), black_box(new).double()
    checks = certificates(network)
    report = il2o.certify(checks, inference)
    boxed = il2o.certify(checks, il2o.Inference(x=guessed, data=cost))
    print("equilibrium layer:", report.table(), "\nblack box:", boxed.table(), sep="\n")
    results = {
        "mean flow": error(flows.mean(0).expand_as(settled)),
        "untrained": untrained,
        "black box": error(guessed),
        "implicit, trained": error(inference.x),
    }
    print("\nrelative error of flows, %:", *(f"  {k:20s}{v:8.2f}" for k, v in results.items()), sep="\n")

    # 5. What a black box cannot be asked: the bridge in the middle is closed. The problem changes, the learned times stay.
    bridge = (network.tail == 1) & (network.head == 2)
    with torch.no_grad():
        closed = layer(cost, closed=torch.from_numpy(bridge)).x

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1])
    day = int((inference.x[:, bridge]).sum(1).argmax())
    draw_flows(left, network, inference.x[day], "predicted flow")
    draw_flows(middle, network, closed[day], "the same day, bridge closed")
    right.barh(list(results), list(results.values()), color=[GREY, GREY, RED, BLUE])
    right.bar_label(right.containers[0], fmt="%.2f", padding=3)
    right.set(xlabel="error of the flows, %", xlim=(0, 1.25 * max(results.values())))
    right.invert_yaxis()
    right.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "traffic.png", dpi=110)
    over = {"bridge": float(closed[:, bridge].abs().max())}
    fails = {"black box fails": float((boxed.worst == il2o.Label.FAIL).double().mean())}
    return {**results, **over, **fails, "trusted": float(report.trusted.double().mean())}


def draw_flows(ax: Axes, network: TrafficNetwork, flow: torch.Tensor, title: str) -> None:
    """The roads, as wide as the flow on them."""
    where = network.coordinates
    for tail, head, v in zip(network.tail, network.head, flow.tolist(), strict=True):
        ends = where[[tail, head]].T
        ax.plot(*ends, color="#dddddd", linewidth=1, zorder=1)
        ax.plot(*ends, color=BLUE, linewidth=14 * v, solid_capstyle="butt", zorder=2)
        ax.annotate(
            f"{v:.2f}", ends.mean(1), ha="center", va="center", bbox={"boxstyle": "round", "fc": "white", "ec": GREY}
        )
    ax.plot(*where.T, "o", color=RED, markersize=13, zorder=3)
    ax.margins(0.12)
    ax.set_title(title)
    ax.axis("off")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
