"""A problem written in CVXPY as a layer: portfolios whose forecasts are learned from decisions, with words for failures.

python gallery/cvxpy_layer.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import cvxpy as cp
import torch
from matplotlib.figure import Figure
from torch import nn

from implicit_l2o.interop.cvxpy import CvxpyLayer

GREY, BLUE, RED = "#bbbbbb", "#0072b2", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. The problem, in the words of CVXPY: five assets, nothing is sold short, none gets more than a cap, and what the
    #    forecast is worth is weighed against a known risk. Forecast and cap are parameters.
    n = 5
    w, forecast, cap = cp.Variable(n, name="weights"), cp.Parameter(n), cp.Parameter(nonneg=True, name="cap")
    spread = torch.randn(n, n) / n**0.5
    risk = cp.sum_squares(spread.numpy() @ w) + 0.5 * cp.sum_squares(w)
    constraints = [cp.sum(w) == 1, w >= 0, w <= cap]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(risk - forecast @ w), constraints), [forecast, cap], [w])

    # 2. An investor reads four indicators, forms a forecast that we never see, and invests. We see all but that.
    hidden = torch.randn(4, n)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indicators, caps = torch.randn(count, 4), 0.3 + 0.5 * torch.rand(count)
        return indicators, caps, layer(torch.tanh(indicators @ hidden), caps)[0]

    (seen, caps, invested), (new, new_caps, best) = draw(40 if quick else 150), draw(200)

    # 3. The model predicts the forecast, and the opponent the weights themselves, by a softmax (so they sum to one).
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, n))
    black_box = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, n))

    def solved(d: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return layer(model(d), c)[0]

    def guessed(d: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.softmax(black_box(torch.cat([d, c[:, None]], 1)), 1)

    @torch.no_grad()
    def error(x: torch.Tensor) -> float:
        return float((x - best).norm() / best.norm())

    with torch.no_grad():
        untrained = error(solved(new, new_caps))
    for network, answer, steps in ((model, solved, 15 if quick else 60), (black_box, guessed, 200 if quick else 1000)):
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-2 if network is model else 5e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            (answer(seen, caps) - invested).square().sum(1).mean().backward()
            optimizer.step()

    # 4. Certificates come in the problem's own words, one for each constraint. Broken: five assets capped at 15 % cannot
    #    take the whole budget. The solver proves that, and the sample beside it is not touched.
    with torch.no_grad():
        answer, theirs = solved(new, new_caps), guessed(new, new_caps)
        _, report = layer.infer(model(new), new_caps)
        layer.on_failure = "ignore"
        outcome = layer.solve(model(new[:2]), torch.tensor([0.5, 0.15]))
        _, verdict = layer.infer(model(new[:2]), torch.tensor([0.5, 0.15]))
    print(report.table(), "\na cap of 15 %:", verdict.table(1), sep="\n")
    over = (theirs - new_caps[:, None]).amax(1).clamp_min(0)
    results = {"untrained": untrained, "black box": error(theirs), "implicit, trained": error(answer)}
    print("\nrelative error of the weights:", *(f"  {k:20s}{v:8.4f}" for k, v in results.items()), sep="\n")
    print(f"black box above the cap: {(over > 1e-3).float().mean():.0%} of the portfolios")

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    place = torch.arange(n)
    for k in range(4):
        for offset, x, colour, name in (
            (-0.25, best, GREY, "investor"),
            (0, answer, BLUE, "layer"),
            (0.25, theirs, RED, "black box"),
        ):
            left.bar((place + offset + 6 * k).numpy(), x[k].numpy(), 0.25, color=colour, label=name if k == 0 else None)
        left.hlines(new_caps[k], 6 * k - 0.5, 6 * k + n - 0.5, color="black", linestyle="--", linewidth=1)
    left.set(ylabel="weight", xticks=[6 * k + 2 for k in range(4)], xticklabels=[f"day {k + 1}" for k in range(4)])
    left.set_title("four new days, five assets each; dashed: the cap")
    left.set_ylim(0, 0.9)
    left.legend(frameon=False, ncols=3, fontsize=9, loc="upper right")
    right.barh(list(results), list(results.values()), color=[GREY, RED, BLUE])
    right.bar_label(right.containers[0], fmt="%.3f", padding=3)
    right.set(xlabel="relative error of the weights", xlim=(0, 1.25 * max(results.values())))
    right.invert_yaxis()
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "cvxpy_layer.png", dpi=110)
    statuses = {"usual": int(outcome.status[0]), "infeasible": int(outcome.status[1]), "worst": int(verdict.worst[1])}
    return {**results, **statuses, "trusted": float(report.trusted.float().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
