"""A linear program as a layer: ship goods at prices that were never seen, and refuse what no shipping can satisfy.

python gallery/linear_program.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.losses import solution_mse

BLUE, RED = "#0072b2", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. Three factories serve four shops. `x[i, j]` goes from factory i to shop j; a factory has so much, a shop wants so
    #    much. Those are rows of a linear program in SciPy's words; the demands are data and change with every sample.
    supply, shops = torch.tensor([3.0, 3.0, 3.0]), 4
    program = il2o.LinearProgram(
        A_eq=torch.kron(torch.ones(1, 3), torch.eye(shops)),
        b_eq=torch.full((shops,), 1.5),
        A_ub=torch.kron(torch.eye(3), torch.ones(1, shops)),
        b_ub=supply,
    )
    layer = il2o.LPLayer(program, gamma=0.5, on_failure="ignore")

    # 2. What shipping costs depends on the day in a way that nobody wrote down; a planner's decisions are observed.
    weight = torch.randn(3, 12)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        days, demand = torch.randn(count, 3), 0.5 + 1.5 * torch.rand(count, shops)
        return days, demand, layer(torch.tanh(days @ weight) + 1.5, b_eq=demand).x

    (days, demand, shipped), (new_days, new_demand, best) = draw(60 if quick else 200), draw(300)

    # 3. Two models of the same size: one predicts prices and solves, the other predicts the shipments.
    def mlp(inputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 12))

    prices, black_box = mlp(3), mlp(3 + shops)

    def solved(d: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return layer(prices(d), b_eq=wanted).x

    def guessed(d: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return black_box(torch.cat([d, wanted], 1)).relu()

    def error(x: torch.Tensor) -> float:
        return float((x - best).norm() / best.norm())

    with torch.no_grad():
        untrained = error(solved(new_days, new_demand))
    for model, answer in ((prices, solved), (black_box, guessed)):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(60 if quick else 250):
            optimizer.zero_grad()
            solution_mse(answer(days, demand), shipped).mean().backward()
            optimizer.step()

    # 4. Certificates: `violation` of the program itself, in units of goods, is the measure. Demands are part of the data,
    #    so the measure takes them from there. Broken: the shops want more than all factories have.
    class Violation(il2o.AbstractMeasure):
        name = "goods that are missing"

        def __call__(self, inference: il2o.Inference) -> torch.Tensor:
            return program.with_rhs(b_eq=inference.data).violation(inference.x)

    certificates = [il2o.Certificate(Violation(), il2o.Threshold(1e-3))]
    with torch.no_grad():
        ours, theirs = layer(prices(new_days), b_eq=new_demand), guessed(new_days, new_demand)
        # (In double precision, where the proof of infeasibility is not lost to rounding.)
        greedy = layer(prices(new_days[:1]).double(), b_eq=torch.full((1, shops), 2.5, dtype=torch.float64))
    report = il2o.certify(certificates, il2o.Inference.of(ours, data=new_demand))
    boxed = il2o.certify(certificates, il2o.Inference(x=theirs, data=new_demand))
    refused = il2o.certify(certificates, il2o.Inference.of(greedy, data=torch.full((1, shops), 2.5).double()))
    print("layer:", report.table(), "\nblack box:", boxed.table(), sep="\n")
    print(f"\nwanting 10 of 9: {il2o.Status(int(greedy.status[0])).name}", refused.table(0), sep="\n")
    results = {"untrained": untrained, "black box": error(theirs), "implicit, trained": error(ours.x)}
    print("\nrelative error of shipments:", *(f"  {k:20s}{v:8.4f}" for k, v in results.items()), sep="\n")

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for ax, x, name, colour in ((left, theirs, "black box", RED), (middle, ours.x, "layer", BLUE)):
        ax.plot([0, 2.2], [0, 2.2], color="#bbbbbb")
        ax.plot(best.flatten(), x.flatten(), ".", color=colour, markersize=3, alpha=0.5)
        ax.set(xlabel="the planner's shipment", ylabel="predicted", title=name, aspect="equal")
    bins = torch.logspace(-7, 1, 50).numpy()
    right.hist(boxed.values.flatten().clamp(min=1e-7).numpy(), bins, color=RED, label="black box")
    right.hist(report.values.flatten().clamp(min=1e-7).numpy(), bins, color=BLUE, label="layer")
    right.axvline(1e-3, color="black", linestyle="--")
    right.set(xscale="log", xlabel="goods that are missing", ylabel="days", title="right of the line: FAIL")
    right.legend(frameon=False)
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "linear_program.png", dpi=110)
    labels = {"infeasible": int(greedy.status[0]), "greedy": int(refused.worst[0])}
    fails = {"black box fails": float((boxed.worst == il2o.Label.FAIL).float().mean())}
    return {**results, **labels, **fails, "trusted": float(report.trusted.float().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
