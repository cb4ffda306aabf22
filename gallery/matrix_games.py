"""Rock, paper, scissors with a context: the payoffs are never seen, only how well-informed players mix their actions.

python gallery/matrix_games.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.applications.matrix_games.certificates import of_strategies, of_the_solve
from implicit_l2o.applications.matrix_games.model import PayoffModel, payoff_network
from implicit_l2o.data.matrix_games import PayoffLaw
from implicit_l2o.networks import MLP

GREY, BLUE, RED = "#bbbbbb", "#0072b2", "#d55e00"
ACTIONS = 4


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. Two players, four actions each, a zero-sum game whose payoffs depend on a context of three numbers. Both players
    #    have some entropy, so each context has exactly one equilibrium. We see 15 contexts with their equilibria.
    law = PayoffLaw(ACTIONS, seed=0)
    train, test = law.draw(15, seed=1), law.draw(500, seed=2)

    # 2. The model: a linear map predicts the payoffs, the layer answers with the equilibrium of that game. The operator of
    #    a zero-sum game is a rotation: plain forward steps spiral outwards, Tseng's splitting converges.
    model = PayoffModel(payoff_network(ACTIONS), ACTIONS)

    # 3. The opponent: a network of two softmaxes, whose answers are strategies as well, and equilibria of nothing.
    black_box = MLP((3, 64, 64, 2 * ACTIONS)).double()

    def strategies(net: nn.Module, contexts: torch.Tensor) -> torch.Tensor:
        return torch.softmax(net(contexts).unflatten(1, (2, ACTIONS)), -1).flatten(1)

    @torch.no_grad()
    def errors(x: torch.Tensor) -> torch.Tensor:
        """Total variation distance of the mixed strategies, the mean of both players."""
        return (x - test.x).abs().sum(1) / 4

    # Ours is trained on a condition that needs no solve: in the predicted game the observed strategies have to answer each
    # other. In the payoffs that is convex, so the learned game is found, not searched. The network fits the strategies.
    def responses(d: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        payoff, (u, v) = model.payoff(d), x.split(ACTIONS, dim=1)
        pays, earns = (payoff @ v[..., None])[..., 0], (payoff.mT @ u[..., None])[..., 0]
        return torch.cat([torch.softmax(-pays, 1), torch.softmax(earns, 1)], 1)

    with torch.no_grad():
        untrained = model(test.contexts).x
    answers = ((model, lambda d: responses(d, train.x)), (black_box, lambda d: strategies(black_box, d)))
    for net, answer in answers:
        optimizer = torch.optim.LBFGS(net.parameters(), max_iter=50 if quick else 500, line_search_fn="strong_wolfe")

        def divergence(answer=answer, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = (train.x * (train.x.log() - answer(train.contexts).log())).sum(1).mean()
            loss.backward()
            return loss

        optimizer.step(divergence)

    # 4. Certificates. A pair of strategies, and at rest: nobody in the predicted game wants to move. Broken: the solver is
    #    stopped after two steps from uniform strategies, as somebody in a hurry would. The answer looks like strategies,
    #    their distance to the simplices is zero; but as the solve did not converge, nothing is certified.
    certificates = (of_strategies(ACTIONS), of_the_solve())
    with torch.no_grad():
        answers, guessed = model(test.contexts), strategies(black_box, test.contexts)
        splitting = il2o.ForwardBackwardForward(answers.problem)
        hurry = il2o.KrasnoselskiiMann(il2o.Stopping(1e-6, 0.0, 2))
        uniform = torch.full_like(test.x, 1 / ACTIONS)
        early = il2o.solve(splitting, uniform, solver=hurry, on_failure="ignore")
    report = il2o.certify(certificates, answers)
    verdict = il2o.certify(certificates, il2o.Inference.of(early, problem=answers.problem))
    print(report.table(), "\nstopped after two steps:", verdict.table(), sep="\n")
    results = {
        "untrained": float(errors(untrained).mean()),
        "stopped after two steps": float(errors(early.x).mean()),
        "black box": float(errors(guessed).mean()),
        "implicit, trained": float(errors(answers.x).mean()),
    }
    print("\ndistance to the equilibrium:", *(f"  {name:26s}{value:8.4f}" for name, value in results.items()), sep="\n")

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for ax, x, name in ((left, guessed, "black box"), (middle, answers.x, "implicit: equilibria")):
        ax.plot([0, 1], [0, 1], color=GREY)
        ax.plot(test.x.flatten(), x.flatten(), ".", color=RED if x is guessed else BLUE, markersize=2, alpha=0.5)
        ax.set(xlabel="exact probability of an action", ylabel="predicted", title=name, aspect="equal")
    grid = torch.logspace(-8, 0, 60).numpy()
    right.hist(errors(guessed).clamp(min=1e-8).numpy(), grid, color=RED, alpha=0.7, label="black box")
    right.hist(errors(answers.x).clamp(min=1e-8).numpy(), grid, color=BLUE, alpha=0.7, label="implicit")
    right.set(xscale="log", xlabel="distance to the equilibrium", ylabel="test contexts")
    right.legend(frameon=False)
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "matrix_games.png", dpi=110)
    violation = {"early violation": float(verdict.values[:, 0].max())}
    fails = {"early fail": float((verdict.labels[:, 1] == 2).double().mean())}
    return {**results, **violation, **fails, "trusted": float(report.trusted.double().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
