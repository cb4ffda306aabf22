"""Signals from a third of their numbers: a transform is learned in which they are sparse, and strangers are told apart.

python gallery/sparse_recovery.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

import implicit_l2o as il2o
from implicit_l2o.applications.dictionary import ImplicitDictionary, Sizes
from implicit_l2o.applications.dictionary.certificates import fidelity, sparsities
from implicit_l2o.applications.dictionary.data import signals, world

GREY, BLUE, RED = "#bbbbbb", "#0072b2", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. Signals of 60 numbers are mixtures of a few of 12 unknown atoms; 24 numbers are measured, `d = A x`. Infinitely many
    #    signals explain a measurement: which one is right only experience can say.
    sizes = Sizes(signal=60, atoms=12, measurements=24, density=0.15)
    A = world(sizes, seed=0).A
    train, test = (signals(sizes, n, seed=0, stream=i) for i, n in enumerate((500 if quick else 2000, 500)))
    measured = test @ A.mT

    # 2. The model: `x(d)` minimises `|K x|_1` over all signals that explain `d`, with a learned transform `K`. Every answer
    #    explains its measurement up to rounding, trained or not.
    def solver(steps: int, rtol: float) -> il2o.KrasnoselskiiMann:
        return il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=rtol, max_steps=steps), relaxation=1.8)

    model = ImplicitDictionary(A, seed=0, solver=solver(3000, 1e-3))

    @torch.no_grad()
    def error(x: torch.Tensor) -> float:
        return float(((x - test).norm(dim=1) / test.norm(dim=1).clamp_min(1e-9)).median())

    with torch.no_grad():
        untrained = model(measured).x

    # 3. Train on signals, through exactly 100 steps of the solver and JFB. The penalty keeps the transform invertible.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    epochs = 5 if quick else 20
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(train)).split(100):
            x = train[batch]
            answer = model(x @ A.mT, solver(100, 0.0))
            loss = (answer.x - x).square().mean() + 1e-3 * model.conditioning()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()

    # 4. An honest opponent: the linear map from measurements to signals that is best on the training data. As there are
    #    more measurements than atoms it can be exact; it is told more than ours uses, and answers anything without a word.
    linear = torch.linalg.lstsq((train @ A.mT).double(), train.double(), driver="gelsd").solution.float()
    least_norm = measured @ torch.linalg.pinv(A).mT

    # 5. Certificates: the answer explains the measurement (rounding decides), and it is as sparse under the learned
    #    transform as answers on training measurements are. Strangers: signals without structure, measured by the same `A`.
    with torch.no_grad():
        answers = model(measured)
        known, strangers = model(train[:500] @ A.mT), model(torch.randn(500, 60) @ A.mT)
        relative = sparsities(model.K)[1]
        certificates = (fidelity(A), *il2o.calibrate([relative], known, p_pass=0.95, p_fail=0.05))
    report, verdict = il2o.certify(certificates, answers), il2o.certify(certificates, strangers)
    print(report.table(), "\nsignals without structure:", verdict.table(), sep="\n")
    results = {
        "least norm": error(least_norm),
        "untrained": error(untrained),
        "implicit, trained": error(answers.x),
        "linear regression": error(measured @ linear),
    }
    print("\nmedian relative error:", *(f"  {name:20s}{value:8.4f}" for name, value in results.items()), sep="\n")

    figure = Figure(figsize=(11, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    shown = int(test.norm(dim=1).argsort()[len(test) // 2])
    left.plot(test[shown], color="#cccccc", linewidth=5, label="signal")
    left.plot(least_norm[shown], color=RED, linewidth=1, linestyle="--", label="least norm")
    left.plot(answers.x[shown], color=BLUE, linewidth=1.4, label="recovered, trained")
    left.set(xlabel="entry", title="60 numbers from 24")
    left.set_ylim(top=1.4 * float(test[shown].max()))
    left.legend(frameon=False, ncols=3, fontsize=9, loc="upper center")
    bins = torch.linspace(0, float(verdict.values[:, 1].quantile(0.99)), 50).numpy()
    right.hist(report.values[:, 1].numpy(), bins, color=BLUE, alpha=0.8, label="test signals")
    right.hist(verdict.values[:, 1].numpy(), bins, color=RED, alpha=0.6, label="without structure")
    right.axvline(certificates[1].rule.warn_limit, color="black", linestyle="--")
    right.set(xlabel="$|K x|_1 / |d|$", ylabel="answers", title="right of the line: FAIL")
    right.legend(frameon=False, fontsize=9)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "sparse_recovery.png", dpi=110)
    fails = {"strangers fail": float((verdict.worst == il2o.Label.FAIL).float().mean())}
    return {**results, **fails, "trusted": float(report.trusted.float().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
