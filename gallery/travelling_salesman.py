"""Tours whose roads nobody prices: learned from the tours that were driven, and a doubt that shows the choice was close.

python gallery/travelling_salesman.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.applications.travelling_salesman.certificates import EdgesOffTour
from implicit_l2o.applications.travelling_salesman.model import tour_program
from implicit_l2o.data.travelling_salesman import generate
from implicit_l2o.decoders import TravellingSalesman
from implicit_l2o.losses import fenchel_young, normalized_regret

GREY, BLUE, SKY, GREEN, RED = "#bbbbbb", "#0072b2", "#56b4e9", "#009e73", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. A driver visits twelve cities every day and picks the cheapest tour. What roads cost depends on the day (five
    #    numbers, and noise). We see days and tours. No map is given to the model, the cities below are for the figure.
    data = generate(n_cities=12, train=200 if quick else 800, validation=200, test=300)
    salesman = TravellingSalesman(12)  # exact tours under given costs; it also numbers the 66 roads

    # 2. The model: an affine map from the day to costs, then the best point of a relaxation of all tours: two roads at
    #    every city, each at most once. A real tour satisfies that, so it is optimal for the relaxation if it can be.
    network, program = nn.Linear(5, salesman.n), tour_program(salesman)
    rough = il2o.LPLayer(program, gamma=1.0, tolerance=0.1)
    layer = il2o.LPLayer(program, gamma=1.0, tolerance=1e-3, max_steps=20_000)

    @torch.no_grad()
    def infer(days: torch.Tensor) -> il2o.Inference:
        return layer.inference(network(days))

    def regret(costs: torch.Tensor) -> float:
        """What the exact tours under these costs cost above the best, once the true costs are known, in %."""
        return 100 * float(normalized_regret(salesman(costs), data.test.costs, data.test.tours))

    untrained = regret(network(data.test.contexts))

    # 3. Train so that the driven tour is optimal under the predicted costs. The loss is convex in the costs, hence in this
    #    affine map: there is one best map, and no luck in finding it.
    optimizer = torch.optim.AdamW(network.parameters())
    for epoch in range(epochs := 5 if quick else 15):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - epoch / epochs)
        for batch in torch.randperm(len(data.train)).split(32):
            costs = network(data.train.contexts[batch])
            with torch.no_grad():
                x = rough(costs).x
            loss = fenchel_young(il2o.QuadraticCost(linear=costs, diagonal=rough.gamma), x, data.train.tours[batch])
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()

    # 4. An honest opponent sees the cost of every road: the best affine fit to them, by least squares. And somebody who
    #    never looks at the day drives the tour that shares most roads with those that were driven.
    affine = torch.cat([data.train.contexts, torch.ones(len(data.train), 1)], 1)
    fit = torch.linalg.lstsq(affine, data.train.costs).solution
    two_stage = torch.cat([data.test.contexts, torch.ones(len(data.test), 1)], 1) @ fit
    usual = -data.train.tours.mean(0, keepdim=True).expand(len(data.test), -1)

    # 5. Certificates: the answer is in the relaxation, and nearly is the tour that is decided on. The limit of the latter
    #    is conformal: a usual day fails it in at most one case of twenty.
    certificates = (
        il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-2)),
        *il2o.conformal([EdgesOffTour(salesman)], infer(data.validation.contexts), level=0.05),
    )
    answers = infer(data.test.contexts)
    report = il2o.certify(certificates, answers)
    # What must not be trusted: a day that arrives as NaN. It fails, and changes nothing for the day beside it.
    layer.on_failure = "ignore"
    pair = infer(torch.stack([data.test.contexts[0], torch.full((5,), torch.nan)]))
    verdict = il2o.certify(certificates, pair)
    print(report.table(), verdict.table(1), sep="\n\n")

    results = {
        "untrained": untrained,
        "the usual tour": regret(usual),
        "learned from tours": regret(network(data.test.contexts)),
        "two-stage, sees costs": regret(two_stage),
        "floor: exact mean costs": regret(data.test.mean_costs),
    }
    print("\n% above the best tour:", *(f"  {name:24s}{value:6.1f}" for name, value in results.items()), sep="\n")

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, bars = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    order = report.values[:, 1].argsort()
    sure, doubtful = int(order[0]), int(order[-1])
    for ax, sample, name in ((left, sure, "the surest day"), (middle, doubtful, "the most doubtful day")):
        draw_tour(ax, data.cities, salesman, answers.x[sample])
        ax.set_title(f"{name}: {il2o.Label(int(report.worst[sample])).name}")
    bars.barh(list(results), list(results.values()), color=[GREY, GREY, BLUE, SKY, GREEN])
    bars.bar_label(bars.containers[0], fmt="%.1f", padding=3)
    bars.set(xlabel="% above the cheapest tour", xlim=(0, 1.2 * max(results.values())))
    bars.invert_yaxis()
    bars.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "travelling_salesman.png", dpi=110)
    unmoved = float((pair.x[0] - answers.x[0]).abs().max())
    labels = {"nan": int(verdict.worst[1]), "doubtful": int(report.worst[doubtful])}
    return {**results, **labels, "unmoved": unmoved, "trusted": float(report.trusted.float().mean())}


def draw_tour(ax: Axes, cities: torch.Tensor, salesman: TravellingSalesman, x: torch.Tensor) -> None:
    """The roads, as wide as the relaxed tour takes them."""
    roads = cities.numpy()[salesman.edges]
    ax.add_collection(LineCollection(roads, colors=BLUE, linewidths=4 * x.numpy(), capstyle="round"))
    ax.plot(*cities.T.numpy(), "o", color=RED, markersize=7)
    ax.axis("off")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
