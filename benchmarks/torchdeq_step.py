"""A forward and a backward pass against TorchDEQ's: the same cell, batch and checked residual, one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.torchdeq_step --mnist DIR        # writes results/torchdeq.json

The cell is MNIST's after a short training, with contraction 0.9. Each contender gets the loosest tolerance of a geometric
grid at which the residual that is measured here, at the point which it returns, meets the goal: whoever checks an iterate
earlier or later has no advantage by it. All contenders alternate within every repetition; a ratio is the median of the
repetitions' own ratios, of processor time. TorchDEQ 0.1.0: pip install --no-deps torchdeq==0.1.0
"""

import argparse
import dataclasses
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from benchmarks.image_cells import CELLS, how_contractive, images_of, relative_residual, trained
from implicit_l2o.applications.images import ImageClassifier, Proven
from implicit_l2o.applications.images.backward_comparison.torchdeq_mode import TorchDEQ, missing
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[1]
BATCH, GAMMA, RTOL = 64, 0.9, 1e-6
GOALS = (1e-3, 1e-5)  # of |T(z) - z| / |z|, the worst of the batch
GRID = 1.2
SOLVERS = {
    "fixed point": lambda stopping: il2o.KrasnoselskiiMann(stopping),
    "Anderson": lambda stopping: il2o.Anderson(stopping),
}


@dataclasses.dataclass(frozen=True)
class Contender:
    """A mode with a solver.

    Args:
        backward: the mode.
        solver: of the forward pass, by its name above; TorchDEQ has its own, and only the tolerance is taken.
    """

    backward: il2o.AbstractBackward
    solver: str = "fixed point"


OURS = {
    "JFB": Contender(il2o.JFB()),
    "JFB, Anderson": Contender(il2o.JFB(), "Anderson"),
    "Neumann(4)": Contender(il2o.Neumann(4)),
    "Implicit, GMRES": Contender(il2o.Implicit(il2o.GMRES(rtol=RTOL))),
}
THEIRS = {
    "1-step": Contender(TorchDEQ()),
    "1-step, Anderson": Contender(TorchDEQ(solver="anderson")),
    "phantom(5)": Contender(TorchDEQ(steps=5)),
    "implicit": Contender(TorchDEQ(implicit=True, rtol=RTOL)),
    "implicit, Anderson": Contender(TorchDEQ(implicit=True, rtol=RTOL, solver="anderson")),
}
# What gives the same gradient.
PAIRS = {"JFB": ("1-step", "1-step, Anderson"), "Implicit, GMRES": ("implicit", "implicit, Anderson")}


def loosest(network: ImageClassifier, contender: Contender, images: Tensor, goal: float) -> tuple[float, float] | None:
    """The tolerance at which the checked residual meets the goal, and that residual; None where none on the grid does."""
    network.backward = contender.backward
    with torch.no_grad():
        T, z0 = network.latent_map(images), network.start(images)
        size = float(T(z0).flatten(1).norm(dim=1).mean())
        for power in range(8, -40, -1):
            tolerance = goal * size * GRID**power
            stopping = il2o.Stopping(atol=tolerance, rtol=0.0, max_steps=500)
            point = contender.backward.run(T, z0, SOLVERS[contender.solver](stopping))
            residual = relative_residual(T, point.z)
            if residual <= goal:
                return tolerance, residual
    return None


def seconds(network: ImageClassifier, images: Tensor, labels: Tensor) -> float:
    """Of a forward and a backward pass, processor time."""
    began = time.process_time()
    loss = F.cross_entropy(network(images).x, labels)
    torch.autograd.grad(loss, list(network.parameters()))
    return time.process_time() - began


def compare(network: ImageClassifier, images: Tensor, labels: Tensor, goal: float, repetitions: int) -> dict[str, Any]:
    """All contenders at one goal for the residual."""
    contenders = OURS | {f"TorchDEQ, {name}": contender for name, contender in THEIRS.items()}
    reached = {name: loosest(network, contender, images, goal) for name, contender in contenders.items()}
    found = {name: value for name, value in reached.items() if value is not None}
    spent: dict[str, list[float]] = {name: [] for name in found}
    for repetition in range(repetitions + 1):  # the first warms up
        for name, (tolerance, _) in found.items():
            contender = contenders[name]
            network.backward = contender.backward
            network.solver = SOLVERS[contender.solver](il2o.Stopping(tolerance, 0.0, 500))
            passed = seconds(network, images, labels)
            if repetition:
                spent[name].append(passed)
    theirs = {name: statistics.median(times) for name, times in spent.items() if name.startswith("TorchDEQ")}
    best = min(theirs, key=lambda name: theirs[name])
    pairs = {}
    for mine, others in PAIRS.items():
        known = {f"TorchDEQ, {other}" for other in others} & set(theirs)
        other = min(known, key=lambda name: theirs[name])
        pairs[mine] = {"other": other, "ratio": _ratio(spent[mine], spent[other])}
    return {
        "contenders": {
            name: {
                "seconds": statistics.median(times),
                "tolerance": found[name][0],
                "relative_residual": found[name][1],
                "over_best": _ratio(times, spent[best]),
            }
            for name, times in spent.items()
        },
        "best_torchdeq": best,
        "same_gradient": pairs,
        "not_reached": [name for name in contenders if name not in found],
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every goal."""
    cell = CELLS["MNIST"]
    images, labels = images_of(cell, options.mnist, None, cell.batch * cell.steps)
    network = trained(cell, images, labels, contraction=Proven(GAMMA))
    images, labels = images[:BATCH], labels[:BATCH]
    goals = {}
    for goal in GOALS:
        goals[f"{goal:.0e}"] = found = compare(network, images, labels, goal, options.repetitions)
        for name, row in found["contenders"].items():
            print(f"{goal:.0e} {name:>28}: {1e3 * row['seconds']:7.1f} ms, {row['over_best']:.3f} of TorchDEQ's best")
    return {
        "command": "python -m benchmarks.torchdeq_step",
        "goals": goals,
        "adjoint_rtol": RTOL,
        "batch": BATCH,
        "gamma": GAMMA,
        "repetitions": options.repetitions,
        "threads": torch.get_num_threads(),
        **how_contractive(network, images[:16]),
        "machine": machine(),
    }


def _ratio(mine: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's parquet files; downloaded when not given")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "torchdeq.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if reason := missing():
        print(f"nothing to compare with: {reason}")
        return
    warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # what was reached is measured here
    write_json(options.out, measure(options))
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
