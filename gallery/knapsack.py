"""Knapsacks whose values nobody tells: learned from what a packer chose, and what cannot be packed is said so.

python gallery/knapsack.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import mse_loss

import implicit_l2o as il2o
from implicit_l2o.applications.knapsack.certificates import MassOffSelection
from implicit_l2o.data.knapsack import Items, generate
from implicit_l2o.losses import fenchel_young

GREY, BLUE, SKY, GREEN, RED = "#bbbbbb", "#0072b2", "#56b4e9", "#009e73", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. A packer fills a bag of 20 kg and 20 litres from 40 things. What they are worth depends on the day (five numbers);
    #    we see the day and what was packed. Weights and volumes are known, so the answer can respect them by construction.
    items = Items(40, seed=7)
    samples = generate(items, train=200 if quick else 800, validation=200, test=300, more=0)
    train, test = samples.train, samples.test
    program, decoder = items.program(), items.decoder()

    # 2. The model: a network from the day to values; the layer packs the best fractional bag under them. `polish` makes
    #    that exact, by a compiled Newton method.
    def value_network() -> nn.Module:
        network = nn.Sequential(nn.Linear(5, 100), nn.LeakyReLU(0.1), nn.Linear(100, items.count))
        with torch.no_grad():
            network[-1].bias.add_(3.0)  # start where everything is worth something, so that the limits bind
        return network

    network, layer = value_network(), il2o.LPLayer(program, gamma=1.0, polish=True)

    @torch.no_grad()
    def infer(days: torch.Tensor) -> il2o.Inference:
        return layer.inference(-network(days))  # a program minimises, so costs are minus the values

    def missed(costs: torch.Tensor) -> float:
        """How much of the best bag's true value is missed by the exact best bag under these costs, in %."""
        got = (decoder(costs) * test.values).sum()
        return 100 * float(1 - got / (test.selections * test.values).sum())

    untrained = missed(-network(test.contexts))

    # 3. Train so that the packed bag becomes optimal for the layer's own problem. This loss is convex in the values, and by
    #    Danskin's theorem its gradient is `selection - x`: nothing is differentiated through the solver.
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(10 if quick else 30):
        for batch in torch.randperm(len(train)).split(64):
            costs = -network(train.contexts[batch])
            with torch.no_grad():
                x = layer(costs).x
            loss = fenchel_young(il2o.QuadraticCost(linear=costs, diagonal=layer.gamma), x, train.selections[batch])
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()

    # 4. An honest opponent: the same network, shown the values themselves, by least squares.
    baseline = value_network()
    optimizer = torch.optim.AdamW(baseline.parameters(), lr=3e-3)
    for _ in range(40 if quick else 150):
        for batch in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            mse_loss(baseline(train.contexts[batch]), train.values[batch]).backward()
            optimizer.step()

    # 5. Certificates: the fractional bag keeps its limits, and it nearly is the bag that is decided on (else: doubt).
    feasible = il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3))
    (sure,) = il2o.conformal([MassOffSelection(decoder)], infer(samples.validation.contexts), level=0.05)
    answers = infer(test.contexts)
    report = il2o.certify([feasible, sure], answers)
    print(report.table())

    # What must not be trusted: a customer insists on five things that do not fit together. The lower bounds say so, the
    # program has no feasible point, and the solver ends with a proof of that instead of an answer that looks like one.
    # (In double precision: in single, rounding is too large for the proof, and the status is MAX_STEPS.)
    order = torch.zeros(items.count)
    order[items.weights().sum(0).argsort(descending=True)[:5]] = 1.0
    impossible = il2o.LinearProgram(A_ub=program.A_ub, b_ub=program.b_ub, lower=order, upper=1.0)
    with torch.no_grad():
        refused = il2o.LPLayer(impossible, on_failure="ignore").inference(-network(test.contexts[:1]).double())
    verdict = il2o.certify([feasible], refused)
    print("\nfive things that do not fit:", il2o.Status(int(refused.status[0])).name)
    print(verdict.table(0))

    results = {
        "untrained": untrained,
        "learned from bags": missed(-network(test.contexts)),
        "two-stage, sees values": missed(-baseline(test.contexts)),
        "floor: exact mean values": missed(-test.mean_values),
    }
    print("\n% of the best value that is missed:", *(f"  {k:26s}{v:6.2f}" for k, v in results.items()), sep="\n")

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    bag, certainty, bars = figure.subplots(1, 3, width_ratios=[1.2, 1, 1])
    doubt = report.values[:, 1]
    worst = int(doubt.argmax())
    weight, volume = items.weights()
    decided = decoder(answers.data[worst : worst + 1])[0] > 0.5
    size = 12 * test.values[worst]
    points = bag.scatter(weight, volume, c=answers.x[worst], s=size, cmap="Blues", vmin=0, vmax=1, edgecolors=GREY)
    bag.scatter(
        weight[decided], volume[decided], s=1.7 * size[decided], facecolors="none", edgecolors=RED, linewidths=2
    )
    bag.set(xlabel="weight", ylabel="volume", title="the most doubtful bag (red: decided)")
    figure.colorbar(points, ax=bag, label="share in the fractional bag")
    certainty.hist(doubt.numpy(), bins=30, color=BLUE)
    certainty.axvline(sure.rule.warn_limit, color=RED, linestyle="--")
    certainty.set(xlabel="doubt: mass off the decided bag", ylabel="test days", title="right of the line: FAIL")
    bars.barh(list(results), list(results.values()), color=[GREY, BLUE, SKY, GREEN])
    bars.bar_label(bars.containers[0], fmt="%.2f", padding=3)
    bars.set(xlabel="% of the best value missed", xlim=(0, 1.25 * max(results.values())))
    bars.invert_yaxis()
    for ax in (bag, certainty, bars):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "knapsack.png", dpi=110)
    found = {"infeasible": int(refused.status[0]), "impossible": int(verdict.worst[0])}
    return {**results, **found, "trusted": float(report.trusted.float().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
