"""Digits by an implicit network that has one answer for every image, and says when an image is none of its kind.

python gallery/digits.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy

import implicit_l2o as il2o
from implicit_l2o.applications.digits import DigitsData
from implicit_l2o.applications.digits.certificates import Doubt, ErrorOverMargin, LatentDistance
from implicit_l2o.applications.digits.examined import strangers
from implicit_l2o.applications.digits.model import ImplicitClassifier

COLOURS = {"PASS": "#009e73", "FAIL": "#d55e00"}


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. scikit-learn's 1,797 digits of 8x8 pixels; they come with the package, nothing is downloaded.
    splits = DigitsData(seed=0).splits
    (images, labels), (seen, _), (test, target) = (s.tensors for s in (splits.train, splits.validation, splits.test))

    # 2. The model: an image is encoded, a latent `u` solves `u = R(u; Q(d))`, a readout names the digit. `R` contracts by
    #    0.8 for all weights (its layers are divided by proven bounds of their norms), so `u` exists and is unique.
    model = ImplicitClassifier(seed=0)
    gamma = model.architecture.contraction

    @torch.no_grad()
    def infer(d: torch.Tensor) -> il2o.Inference:
        return model.eval()(d)

    def accuracy(logits: torch.Tensor) -> float:
        return 100 * float((logits.argmax(1) == target).float().mean())

    untrained = accuracy(infer(test).x)

    # 3. Train by JFB: the memory of one layer, however many iterations the equation takes.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
    for epoch in range(epochs := 3 if quick else 12):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - epoch / epochs)
        model.train()
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]).x, labels[batch]).backward()
            optimizer.step()

    # 4. An honest opponent: logistic regression on the pixels.
    logistic = torch.nn.Linear(64, 10)
    optimizer = torch.optim.LBFGS(logistic.parameters(), max_iter=100)

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(logistic(images.flatten(1)), labels) + 1e-3 * logistic.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)

    # 5. Certificates. Two are theorems: the latent is within `residual / (1 - gamma)` of the exact one, and that error is
    #    too small to change the label. Two are experience, with limits from images that were not trained on: how sure the
    #    network is, and how far the latent is from those of its digit in training.
    distance = LatentDistance.fit(infer(images).z, labels)
    certificates = (
        il2o.Certificate(il2o.BanachBound(gamma), il2o.Threshold(1e-2 / (1 - gamma))),
        il2o.Certificate(ErrorOverMargin(gamma, model.readout_lipschitz()), il2o.Threshold(1.0)),
        *il2o.conformal([Doubt(), distance], infer(seen), level=0.05),
    )
    answers = infer(test)
    report = il2o.certify(certificates, answers)
    print(report.table())
    right = answers.x.argmax(1) == target
    results = {
        "untrained": untrained,
        "logistic regression": accuracy(logistic(test.flatten(1))),
        "implicit, trained": accuracy(answers.x),
        "of those, trusted": 100 * float(right[report.trusted].float().mean()),
    }
    # What must not be trusted: images that are no digits. A softmax alone is sure of many of them.
    strange = {name: (d, infer(d)) for name, d in strangers(test).items()}
    reports = {name: il2o.certify(certificates, answer) for name, (_, answer) in strange.items()}
    failing = {name: 100 * float((r.worst == il2o.Label.FAIL).float().mean()) for name, r in reports.items()}
    print("\naccuracy, %:", *(f"  {name:22s}{value:6.1f}" for name, value in results.items()), sep="\n")
    print("\nfail, %:", *(f"  {name:22s}{value:6.1f}" for name, value in failing.items()), sep="\n")

    figure = Figure(figsize=(11, 2.9), layout="constrained")
    axes = figure.subplots(2, 10)
    for column in range(5):
        show(axes[0, column], test[column], answers.x[column], report.worst[column], "")
        show(axes[1, column], test[column + 5], answers.x[column + 5], report.worst[column + 5], "")
    for column, (name, (d, answer)) in enumerate(strange.items(), start=6):
        for row in range(2):
            show(axes[row, column], d[row], answer.x[row], reports[name].worst[row], name)
    axes[0, 5].axis("off")
    axes[1, 5].axis("off")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "digits.png", dpi=110)
    return {**results, **failing, "trusted": float(report.trusted.float().mean())}


def show(ax, image: torch.Tensor, logits: torch.Tensor, worst: torch.Tensor, name: str) -> None:
    """An image in the frame of its verdict."""
    verdict = il2o.Label(int(worst)).name
    ax.imshow(image[0].numpy(), cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{name} read as {int(logits.argmax())}".strip(), fontsize=8)
    ax.set_xlabel(verdict, color=COLOURS[verdict], fontsize=9)
    ax.spines[:].set(color=COLOURS[verdict], linewidth=2.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
