"""Shortest paths under costs that nobody shows: learned from the paths that were taken, with a doubt that can be read.

python gallery/shortest_path.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import mse_loss

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.certificates import FlowOffPath
from implicit_l2o.data.shortest_path import Grid, generate
from implicit_l2o.losses import normalized_regret, solution_mse


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. A taxi knows the weather (five numbers) and which way other taxis went. What the roads cost that day it never
    #    learns. A path is a unit flow through the grid, so the feasible set is a linear program's.
    data = generate(side=5, train=250 if quick else 1000, validation=200, test=500)
    grid = data.grid
    program = il2o.LinearProgram(A_eq=grid.incidence(), b_eq=grid.supply())

    # 2. The model: a network from weather to costs, then the cheapest flow under them. The quadratic term (gamma) spreads
    #    the flow where two paths cost nearly the same; without it the answer would jump, and have no gradient.
    network = nn.Sequential(nn.Linear(5, 50), nn.LeakyReLU(0.1), nn.Linear(50, grid.n_arcs))
    rough = il2o.LPLayer(program, gamma=1.0, tolerance=0.1)  # in training: a tenth of the flow is near enough
    layer = il2o.LPLayer(program, gamma=1.0, tolerance=1e-4)

    def decide(net: nn.Module) -> torch.Tensor:
        """At test time nothing is relaxed: the exact shortest path under the predicted costs."""
        with torch.no_grad():
            return grid.shortest_paths(net(data.test.contexts))

    def regret(paths: torch.Tensor) -> float:
        """What the paths cost above the best, once the costs have come true."""
        return 100 * float(normalized_regret(paths, data.test.costs, data.test.paths))

    untrained = regret(decide(network))

    # 3. Train on contexts and paths alone. Noise on the predicted costs shows the loss all sides of the jump, and the mean
    #    flow has to be the path that was taken. JFB, the default, differentiates one step of the solver.
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(4 if quick else 12):
        for batch in torch.randperm(len(data.train)).split(64):
            costs = network(data.train.contexts[batch])
            flow = rough(costs.repeat(8, 1) + 1.5 * torch.randn(8 * len(batch), grid.n_arcs)).x
            loss = solution_mse(flow.unflatten(0, (8, -1)).mean(0), data.train.paths[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    # 4. An honest opponent: the same network, but it is shown the costs of every road and fits them by least squares.
    baseline = nn.Sequential(nn.Linear(5, 50), nn.LeakyReLU(0.1), nn.Linear(50, grid.n_arcs))
    optimizer = torch.optim.AdamW(baseline.parameters(), lr=1e-2)
    for _ in range(20 if quick else 60):
        for batch in torch.randperm(len(data.train)).split(64):
            optimizer.zero_grad()
            mse_loss(baseline(data.train.contexts[batch]), data.train.costs[batch]).backward()
            optimizer.step()

    # 5. Certificates. Two are constraints with a chosen limit: the answer is a flow, as measured and as the residual
    #    proves. The third, how much of the flow leaves the decided path, is doubt: its limit is a conformal quantile of
    #    validation data, so that a usual context fails it in at most one case of twenty.
    @torch.no_grad()
    def infer(contexts: torch.Tensor) -> il2o.Inference:
        return layer.inference(network(contexts))

    certificates = (
        il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3)),
        il2o.Certificate(il2o.DavisYinDistance(), il2o.Threshold(1e-3)),
        *il2o.conformal([FlowOffPath(grid)], infer(data.validation.contexts), level=0.05),
    )
    trusted = il2o.certify(certificates, infer(data.test.contexts)).trusted
    # What must not be trusted: a weather station that died (zeros: no road is better than another), and one that sends NaN.
    layer.on_failure = "ignore"  # the failure is reported by the certificates, no warning is needed
    shown = torch.stack([data.test.contexts[trusted][0], torch.zeros(5), torch.full((5,), torch.nan)])
    answers = infer(shown)
    report = il2o.certify(certificates, answers)
    print(report.table(1), report.table(2), sep="\n\n")

    results = {
        "untrained": untrained,
        "learned from paths": regret(decide(network)),
        "two-stage, sees costs": regret(decide(baseline)),
        "floor: exact mean costs": regret(grid.shortest_paths(data.test.mean_costs)),
    }
    print("\n% above the best path:", *(f"  {name:24s}{value:6.1f}" for name, value in results.items()), sep="\n")
    print(f"test contexts that are trusted: {trusted.float().mean():.0%}")

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.25])
    draw_flow(axes[0], grid, answers.x[0], f"a usual context: {il2o.Label(int(report.worst[0])).name}")
    draw_flow(axes[1], grid, answers.x[1], f"no weather report: {il2o.Label(int(report.worst[1])).name}")
    axes[2].barh(list(results), list(results.values()), color=["#bbbbbb", "#0072b2", "#56b4e9", "#009e73"])
    axes[2].bar_label(axes[2].containers[0], fmt="%.1f", padding=3)
    axes[2].set(xlabel="% above the cheapest path", xlim=(0, 1.15 * max(results.values())))
    axes[2].invert_yaxis()
    axes[2].spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "shortest_path.png", dpi=110)
    verdicts = {"usual": int(report.worst[0]), "zeros": int(report.worst[1]), "nan": int(report.worst[2])}
    return {**results, **verdicts, "trusted": float(trusted.float().mean())}


def draw_flow(ax: Axes, grid: Grid, flow: torch.Tensor, title: str) -> None:
    """The arcs, as wide as the flow on them."""
    row, column = np.divmod(grid.arcs, grid.side)
    segments = np.stack([column, -row], axis=-1)
    ax.add_collection(LineCollection(segments, colors="#dddddd", linewidths=1))
    ax.add_collection(LineCollection(segments, colors="#0072b2", linewidths=9 * flow.numpy(), capstyle="round"))
    ax.plot([0, grid.side - 1], [0, 1 - grid.side], "o", color="#d55e00", markersize=11)
    ax.set(aspect="equal", title=title)
    ax.axis("off")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
