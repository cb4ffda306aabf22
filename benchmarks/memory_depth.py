"""Peak memory of a training step against the number of iterations, for every backward mode.

    python benchmarks/memory_depth.py        # writes results/memory_depth.json

The step: a learned cost `w(d)` (an encoder 20 -> 200), a Davis-Yin solve on the simplex of 200 variables for a batch of 64,
the squared error, backward, Adam. Iterations are fixed (tolerance zero). The peak counts the bytes of all tensors alive, by
following their storages, so it does not depend on the machine or its load.
"""

import json
import os
import platform
import time
from pathlib import Path

import torch
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.training import peak_memory

DEPTHS = (10, 100, 1000)
BATCH, FEATURES, N = 64, 20, 200
MODES = {
    "JFB": lambda _: il2o.JFB(),
    "Neumann(5)": lambda _: il2o.Neumann(5),
    "Implicit": lambda _: il2o.Implicit(il2o.GMRES(rtol=1e-4, restart=10, max_steps=10)),
    "Unrolled": lambda steps: il2o.Unrolled(steps),
    "Unrolled, checkpoint=20": lambda steps: il2o.Unrolled(steps, checkpoint=20),
}
OUT = Path(__file__).parents[1] / "results" / "memory_depth.json"


def peak_of_a_step(mode: str, steps: int) -> int:
    """Bytes at the peak of one training step."""
    torch.manual_seed(0)
    simplex = il2o.AffineSet(torch.ones(1, N), torch.ones(1))
    layer = il2o.ImplicitLayer(
        nn.Linear(FEATURES, N),
        build=lambda w: il2o.DavisYin(
            il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(lower=0.0), h=simplex)
        ),
        x0=torch.zeros_like,
        solver=il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps)),
        backward=MODES[mode](steps),
        on_failure="ignore",
    )
    optimizer = torch.optim.Adam(layer.parameters())
    contexts, target = torch.randn(BATCH, FEATURES), torch.rand(BATCH, N) / N

    def step() -> None:
        optimizer.zero_grad()
        (layer(contexts).x - target).square().sum().backward()
        optimizer.step()

    step()  # the optimizer's moments and the gradients are made once
    return peak_memory(step)


def main() -> None:
    """Measure every mode at every depth and write the table."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    peaks = {mode: {str(steps): peak_of_a_step(mode, steps) for steps in DEPTHS} for mode in MODES}
    result = {
        "command": "python benchmarks/memory_depth.py",
        "peak_bytes": peaks,
        "growth": {mode: values[str(DEPTHS[-1])] / values[str(DEPTHS[0])] for mode, values in peaks.items()},
        "batch": BATCH,
        "variables": N,
        "environment": {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "seconds": time.perf_counter() - start,
    }
    OUT.parent.mkdir(exist_ok=True)
    partial = OUT.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(OUT)
    for mode, values in peaks.items():
        print(f"{mode:>24}", *(f"{steps:>5} steps: {bytes_ / 1e6:8.2f} MB" for steps, bytes_ in values.items()))
    for mode, growth in result["growth"].items():
        if "Unrolled" not in mode and growth > 1.05:
            raise SystemExit(f"{mode}: memory grows {growth:.2f} times from {DEPTHS[0]} to {DEPTHS[-1]} steps.")


if __name__ == "__main__":
    main()
