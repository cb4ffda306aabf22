"""A cost nobody can write down, learned from decisions: then used for budgets that were never observed.

python gallery/learned_cost.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.applications.learned_cost.baselines import BlackBox
from implicit_l2o.applications.learned_cost.model import ConvexCostNet, DecisionModel
from implicit_l2o.data.decisions import Decisions, DecisionTask

GREY, BLUE, RED = "#bbbbbb", "#0072b2", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. A budget is divided among eight projects. What the dividers weigh is hidden (prices, and shared roads that
    #    congest); a tariff is known. We see contexts, budgets and what was decided.
    task = DecisionTask.allocation(projects=8)
    train, test = task.sample(150 if quick else 400, seed=1), task.sample(300, seed=2)
    larger = task.sample(300, seed=3, scale=2.0)  # budgets that no training draw has seen

    # 2. The model: an input-convex network is the cost, the decision its minimiser over the simplex of the budget. The
    #    opponent of the same size maps contexts and budgets to decisions directly.
    model = DecisionModel(task, ConvexCostNet(task, hidden=16, units=(16,)).double())
    black_box = BlackBox(task, budget=sum(p.numel() for p in model.parameters())).double()
    rough = il2o.KrasnoselskiiMann(il2o.Stopping(atol=3e-3, rtol=0.0, max_steps=200, check_every=10), relaxation=1.4)

    @torch.no_grad()
    def error(x: torch.Tensor, data: Decisions) -> float:
        return float((x - data.decisions).norm() / data.decisions.norm())

    def infer(net: nn.Module, data: Decisions) -> torch.Tensor:
        with torch.no_grad():
            answer = net(data.contexts, data.totals)
        return answer.x if isinstance(answer, il2o.Solution) else answer

    untrained = error(infer(model, test), test)

    # 3. Train both on the squared distance to the decisions; ours by JFB through a projected gradient method.
    for net, epochs in ((model, 20 if quick else 40), (black_box, 30 if quick else 100)):
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(epochs):
            for batch in torch.randperm(len(train.contexts)).split(40):
                d, b = train.contexts[batch], train.totals[batch]
                x = net(d, b, solver=rough).x if net is model else net(d, b)
                optimizer.zero_grad()
                (x - train.decisions[batch]).square().sum(1).mean().backward()
                optimizer.step()

    # 4. Certificates: the budget is spent, nothing is negative, and the solve is at rest. The black box promises none, and
    #    on larger budgets it is out of its depth: its answers fail.
    class Unspent(il2o.AbstractMeasure):
        name = "budget violation"

        def __call__(self, inference: il2o.Inference) -> torch.Tensor:
            return task.violation(inference.x, inference.data)

    spent = il2o.Certificate(Unspent(), il2o.Threshold(1e-3))
    at_rest = il2o.Certificate(il2o.FixedPointResidual(), il2o.Threshold(1e-5))
    with torch.no_grad():
        solution = model(larger.contexts, larger.totals)
    report = il2o.certify([spent, at_rest], il2o.Inference.of(solution, data=larger.totals))
    guessed = infer(black_box, larger)
    verdict = il2o.certify([spent], il2o.Inference(x=guessed, data=larger.totals))
    print("learned cost, larger budgets:", report.table(), "\nblack box:", verdict.table(), sep="\n")
    results = {
        "untrained": untrained,
        "black box": error(infer(black_box, test), test),
        "learned cost": error(infer(model, test), test),
        "black box, larger budgets": error(guessed, larger),
        "learned cost, larger budgets": error(solution.x, larger),
    }
    print("\nrelative decision error:", *(f"  {k:30s}{v:8.4f}" for k, v in results.items()), sep="\n")

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    for ax, x, name, colour in ((left, guessed, "black box", RED), (middle, solution.x, "learned cost", BLUE)):
        ax.plot([0, 2.2], [0, 2.2], color=GREY)
        ax.plot(larger.decisions.flatten(), x.flatten(), ".", color=colour, markersize=3, alpha=0.5)
        ax.set(xlabel="decided, larger budgets", ylabel="predicted", title=name, aspect="equal")
    right.barh(list(results), list(results.values()), color=[GREY, RED, BLUE, RED, BLUE])
    right.bar_label(right.containers[0], fmt="%.3f", padding=3)
    right.set(xlabel="relative decision error", xlim=(0, 1.25 * max(results.values())))
    right.invert_yaxis()
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "learned_cost.png", dpi=110)
    fails = {"black box fails": float((verdict.worst == il2o.Label.FAIL).double().mean())}
    return {**results, **fails, "trusted": float(report.trusted.double().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
