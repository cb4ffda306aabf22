"""Backward modes side by side on images: what one step of the solver's derivative costs, and what it is worth.

python gallery/images.py [--quick] [--out gallery_out]
"""

import argparse
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cosine_similarity, cross_entropy

import implicit_l2o as il2o
from implicit_l2o.applications.digits import DigitsData
from implicit_l2o.applications.images import DIGITS, ImageClassifier, Proven

COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00")
GAMMA = 0.9


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    # 1. Digits of 8x8 pixels, and one network: the latent solves `u = R(u; Q(d))`, `R` contracts by 0.9 for all weights. How
    #    the derivative of that equation is taken is an option, and nothing else changes.
    splits = DigitsData(seed=0).splits
    (images, labels), (test, target) = (part.tensors for part in (splits.train, splits.test))
    modes = {
        "JFB": il2o.JFB(),
        "Neumann(2)": il2o.Neumann(2),
        "Implicit": il2o.Implicit(),
        "Unrolled(60)": il2o.Unrolled(60),
    }

    def gradient(net: ImageClassifier, batch: slice) -> torch.Tensor:
        """Of the loss, in all parameters, as one vector."""
        net.zero_grad()
        cross_entropy(net(images[batch]).x, labels[batch]).backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    # 2. Train the same network with each mode: same seed, same order of the batches.
    accuracy, seconds, losses, nets = {}, {}, {}, {}
    for name, backward in modes.items():
        torch.manual_seed(0)
        net = nets[name] = ImageClassifier(DIGITS, contraction=Proven(GAMMA), seed=0, backward=backward)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-3)
        start, losses[name] = time.process_time(), []
        for _ in range(1 if quick else 4):
            for batch in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                loss = cross_entropy(net(images[batch]).x, labels[batch])
                loss.backward()
                optimizer.step()
                losses[name].append(float(loss.detach()))
        seconds[name] = time.process_time() - start
        with torch.no_grad():
            accuracy[name] = 100 * float((net.eval()(test).x.argmax(1) == target).float().mean())

    # 3. How near is each direction to the exact gradient, at the same trained weights? (Without dropout, in double precision
    #    and to a tight tolerance, so that only the mode differs.)
    images, tight = images.double(), il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, 2000))
    net = nets["JFB"].double().eval()
    usual, net.solver, net.backward = net.solver, tight, il2o.Implicit(il2o.GMRES(rtol=1e-9))
    exact = gradient(net, slice(0, 64))
    cosines = {}
    for name, backward in modes.items():
        net.backward, net.solver = backward, usual if isinstance(backward, il2o.Unrolled) else tight
        cosines[name] = float(cosine_similarity(gradient(net, slice(0, 64)), exact, dim=0))
    print(f"{'mode':14s}{'accuracy, %':>12s}{'seconds':>9s}{'cosine with the gradient':>26s}")
    for name in modes:
        print(f"{name:14s}{accuracy[name]:12.1f}{seconds[name]:9.1f}{cosines[name]:26.3f}")

    # 4. Certificates. The contraction is a theorem, so the residual bounds the distance to the exact one. Broken: a solver
    #    that stops after three steps. Its labels may look right; that is not known of them, and the bound says so.
    bound = il2o.Certificate(il2o.BanachBound(GAMMA), il2o.Threshold(0.1))
    reports = []
    for steps in (2000, 3):
        net.solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-3, 0.0, steps))
        with torch.no_grad():
            point = il2o.fixed_point(
                net.latent_map(test.double()), net.start(test), solver=net.solver, on_failure="ignore"
            )
            reports.append(il2o.certify([bound], il2o.Inference.of(point)))
    print("\nsolved:", reports[0].table(), "\nstopped after three steps:", reports[1].table(), sep="\n")

    figure = Figure(figsize=(11, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
    for (name, curve), colour in zip(losses.items(), COLOURS, strict=True):
        left.plot(curve, color=colour, label=name, linewidth=1.3)
    left.set(yscale="log", xlabel="training step", ylabel="loss")
    left.legend(frameon=False, fontsize=9)
    for ax, values, label in ((middle, cosines, "cosine with the gradient"), (right, seconds, "seconds of training")):
        ax.barh(list(values), list(values.values()), color=COLOURS)
        ax.bar_label(ax.containers[0], fmt="%.2f", padding=3)
        ax.set(xlabel=label, xlim=(0, 1.25 * max(values.values())))
        ax.invert_yaxis()
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "images.png", dpi=110)
    early = float((reports[1].worst == il2o.Label.FAIL).float().mean())
    found = {f"accuracy {name}": value for name, value in accuracy.items()} | {
        f"cosine {k}": v for k, v in cosines.items()
    }
    return {**found, "early fails": early, "trusted": float(reports[0].trusted.float().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
