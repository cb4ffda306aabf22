"""Seconds of JFB against the exact backward modes on fixed batches: the same network, forward tolerance and data.

    OMP_NUM_THREADS=1 python -m benchmarks.jfb_epoch_time --mnist DIR --cifar10 DIR    # writes results/jfb_epoch_time.json

An "epoch" is a forward and a backward pass over the same few batches, without a step of the optimizer, so that every mode
sees the same weights. The modes alternate within every repetition; a ratio is the median of the repetitions' own ratios,
of processor time. The adjoint equations are solved to 1e-6 relative to the cotangent, and every gradient is compared
with that of float64.
"""

import argparse
import copy
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from benchmarks.image_cells import CELLS, how_contractive, images_of, relative_residual, solver, trained
from implicit_l2o.applications.images import ImageClassifier
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[1]
RTOL = 1e-6
BATCHES = 2
MODES: dict[str, il2o.AbstractBackward] = {
    "JFB": il2o.JFB(),
    "conjugate gradient": il2o.Implicit(il2o.NormalCG(rtol=RTOL)),
    "GMRES": il2o.Implicit(il2o.GMRES(rtol=RTOL)),
    "fixed point": il2o.Implicit(il2o.KrasnoselskiiMann(il2o.Stopping(RTOL, 0.0, 1000))),
    "Anderson": il2o.Implicit(il2o.Anderson(il2o.Stopping(RTOL, 0.0, 1000))),
}
FORWARD = {"1e-2, absolute": il2o.KrasnoselskiiMann(il2o.Stopping(1e-2, 0.0, 500)), "1e-6": solver(1e-6)}


def gradient(network: ImageClassifier, images: Tensor, labels: Tensor) -> tuple[Tensor, float, float]:
    """The gradient, and the processor seconds of the forward and the backward pass."""
    began = time.process_time()
    loss = F.cross_entropy(network(images).x, labels)
    between = time.process_time()
    parts = torch.autograd.grad(loss, list(network.parameters()))
    ended = time.process_time()
    return torch.cat([part.reshape(-1) for part in parts]), between - began, ended - between


def exact_gradient(network: ImageClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """In float64, to tight tolerances."""
    model = copy.deepcopy(network).double()
    model.solver, model.backward = solver(1e-12), il2o.Implicit(il2o.GMRES(rtol=1e-11, max_steps=1000))
    return gradient(model, images.double(), labels)[0]


def compare(
    network: ImageClassifier, batches: list[tuple[Tensor, Tensor]], forward: il2o.KrasnoselskiiMann, repetitions: int
) -> dict[str, Any]:
    """Every mode on the same batches, in turns."""
    network.solver = forward
    spent: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    errors = dict.fromkeys(MODES, 0.0)
    truths = [exact_gradient(network, *batch) for batch in batches]
    for repetition in range(repetitions + 1):  # the first warms up, and is where the gradients are compared
        for mode, network.backward in MODES.items():
            total = [0.0, 0.0]
            for (images, labels), true in zip(batches, truths, strict=True):
                found, *seconds = gradient(network, images, labels)
                total = [a + b for a, b in zip(total, seconds, strict=True)]
                if repetition == 0:
                    errors[mode] = max(errors[mode], float((found - true).norm() / true.norm()))
            if repetition:
                spent[mode].append((total[0], total[1]))
    jfb = [sum(each) for each in spent["JFB"]]
    network.backward = None
    with torch.no_grad():
        inference = [network(images) for images, _ in batches]
        residuals = [
            relative_residual(network.latent_map(images), found.z)
            for (images, _), found in zip(batches, inference, strict=True)
            if found.z is not None
        ]
    steps = torch.cat([found.steps for found in inference if found.steps is not None]).double()
    rows = {}
    for mode, times in spent.items():
        totals = [sum(each) for each in times]
        rows[mode] = {
            "seconds": statistics.median(totals),
            "forward": statistics.median(each[0] for each in times),
            "backward": statistics.median(each[1] for each in times),
            "jfb_ratio": statistics.median(mine / its for mine, its in zip(jfb, totals, strict=True)),
            "gradient_error": errors[mode],
        }
    exact = {mode: row["seconds"] for mode, row in rows.items() if mode != "JFB"}
    return {
        "modes": rows,
        "fastest_exact": min(exact, key=lambda mode: exact[mode]),
        "steps": float(steps.mean()),
        "relative_residual": max(residuals),
    }


def measure(options: argparse.Namespace) -> None:
    """Every network; the file is written after each."""
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"networks": {}}
    result |= {
        "command": "python -m benchmarks.jfb_epoch_time",
        "adjoint_rtol": RTOL,
        "repetitions": options.repetitions,
        "threads": torch.get_num_threads(),
    }
    for name in options.networks:
        cell = CELLS[name]
        images, labels = images_of(cell, options.mnist, options.cifar10, max(cell.steps, BATCHES) * cell.batch)
        network = trained(cell, images, labels)
        batches = [
            (images[i * cell.batch : (i + 1) * cell.batch], labels[i * cell.batch : (i + 1) * cell.batch])
            for i in range(BATCHES)
        ]
        result["networks"][name] = {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "batch": cell.batch,
            "batches": BATCHES,
            "trained_steps": cell.steps,
            "gamma": cell.gamma,
            **how_contractive(network, images[: min(16, cell.batch)]),
            "forward": {
                tolerance: compare(network, batches, forward, options.repetitions)
                for tolerance, forward in FORWARD.items()
            },
        }
        for tolerance, found in result["networks"][name]["forward"].items():
            ratios = {mode: round(row["jfb_ratio"], 3) for mode, row in found["modes"].items()}
            print(
                f"{name}, forward to {tolerance}: JFB over {ratios}; slope {result['networks'][name]['slope']:.3f}",
                flush=True,
            )
        result["machine"] = machine()
        write_json(options.out, result)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's parquet files; downloaded when not given")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10's parquet files; downloaded when not given")
    parser.add_argument(
        "--networks", nargs="+", default=list(CELLS), choices=list(CELLS), help="others stay as on file"
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "jfb_epoch_time.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # the errors of the gradients say it
    measure(options)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
