"""Peak memory of a training step of the MNIST cell against the number of iterations, for every backward mode.

    python -m benchmarks.jfb_memory        # writes results/jfb_memory.json

The iterations are fixed (tolerance zero). The peak counts the bytes of all tensors alive, by following their storages, so it
does not depend on the machine or its load; the images do not matter and are noise. The contraction is the estimated one: the
proof's norm bounds take 45 MB whatever the batch and the mode, which would hide the rest. `benchmarks/memory_depth.py` does
the same on a Davis-Yin layer.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import implicit_l2o as il2o
from implicit_l2o.applications.images import MNIST, Estimated, ImageClassifier
from implicit_l2o.report import machine, write_json
from implicit_l2o.training import peak_memory

ROOT = Path(__file__).parents[1]
DEPTHS = (10, 100, 1000)
BATCH = 16
FLAT = 1.05  # growth that is allowed to every mode but Unrolled
# The adjoint solves are cut at a fixed number of products, for a tolerance would let the depth change their number.
MODES = {
    "JFB": lambda _: il2o.JFB(),
    "Neumann(1)": lambda _: il2o.Neumann(1),
    "Neumann(5)": lambda _: il2o.Neumann(5),
    "Neumann(20)": lambda _: il2o.Neumann(20),
    "Implicit, GMRES": lambda _: il2o.Implicit(il2o.GMRES(rtol=1e-12, restart=30, max_steps=30)),
    "Implicit, CG": lambda _: il2o.Implicit(il2o.NormalCG(rtol=1e-12, max_steps=60)),
    "Unrolled": lambda steps: il2o.Unrolled(steps),
    "Unrolled, checkpoint=20": lambda steps: il2o.Unrolled(steps, checkpoint=20),
}


def peak_of_a_step(mode: str, steps: int) -> int:
    """Bytes at the peak of one training step."""
    torch.manual_seed(0)
    network = ImageClassifier(
        MNIST,
        contraction=Estimated(0.9),
        seed=0,
        solver=il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps)),
        backward=MODES[mode](steps),
    )
    optimizer = torch.optim.Adam(network.parameters())
    images, labels = torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images).x, labels).backward()
        optimizer.step()

    step()  # the optimizer's moments and the gradients are made once
    return peak_memory(step)


def main() -> None:
    """Measure every mode at every depth, write the table, and fail where memory grows that should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "jfb_memory.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peaks: dict[str, dict[str, int]] = {}
    for mode in MODES:
        peaks[mode] = {str(steps): peak_of_a_step(mode, steps) for steps in DEPTHS}
        print(
            f"{mode:>24}",
            *(f"{steps:>5} steps: {size / 1e6:8.2f} MB" for steps, size in peaks[mode].items()),
            flush=True,
        )
    growth = {mode: sizes[str(DEPTHS[-1])] / sizes[str(DEPTHS[0])] for mode, sizes in peaks.items()}
    result: dict[str, Any] = {
        "command": "python -m benchmarks.jfb_memory",
        "peak_bytes": peaks,
        "growth": growth,
        "batch": BATCH,
        "machine": machine(),
    }
    write_json(options.out, result)
    print(json.dumps(growth, indent=1))
    growing = [mode for mode, times in growth.items() if "Unrolled" not in mode and times > FLAT]
    if growing:
        raise SystemExit(f"memory grows by more than 5 % from {DEPTHS[0]} to {DEPTHS[-1]} steps: {', '.join(growing)}.")


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # the solves are cut on purpose
    main()
