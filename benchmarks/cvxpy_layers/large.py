"""Sparse problems of ten thousand unknowns, forward and backward: time, memory and accuracy, each layer in its own process.

    OMP_NUM_THREADS=1 python -m benchmarks.cvxpy_layers.large         # writes results/cvxpy_large.json

Every process may use 120 s of processor time and 8 GiB of memory (of data; mapped libraries do not count), its imports and
the compilation of the problem included. What goes beyond that is stopped, and the row says where.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from benchmarks.cvxpy_layers.__main__ import PACKAGES
from benchmarks.cvxpy_layers.methods import METHODS, gradient
from benchmarks.cvxpy_layers.one import STEP, agreement, direction_like
from benchmarks.cvxpy_layers.problems import Standard, max_flow, predictive_control
from implicit_l2o.interop.cvxpy import CvxpyLayer
from implicit_l2o.report import machine, write_json

RESULTS = Path(__file__).parents[2] / "results" / "cvxpy_large.json"


def total_variation(n: int) -> Standard:
    """A signal with few jumps from a noisy one."""
    x, b = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b) / 2 + cp.norm1(cp.diff(x))))

    def draw(batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        levels = rng.standard_normal((batch, 20)).repeat(n // 20, 1)
        return [levels + 0.3 * rng.standard_normal(levels.shape)]

    return Standard(problem, [b], [x], draw)


def flow(n: int) -> Standard:
    """Arcs cheap enough that crossing a large grid pays."""
    return max_flow(n, price=0.001)


PROBLEMS: dict[str, Callable[[int], Standard]] = {
    "predictive control": predictive_control,
    "total variation": total_variation,
    "max-flow LP": flow,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=120, help="most processor time of a process")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="most memory of a process")
    parser.add_argument("--child", help="a method, or 'reference': measure it in this process")
    parser.add_argument("--known", type=Path, help="where the reference is kept")
    arguments = parser.parse_args()
    if arguments.child:
        _child(arguments)
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    limits = {key: getattr(arguments, key) for key in ("batch", "seconds", "gigabytes")}
    results |= {"machine": machine(), "packages": {name: version(name) for name in PACKAGES}, **limits}
    for problem in arguments.problems:
        row = {"problem": problem, "size": arguments.size, "methods": {}}
        results["rows"] = [r for r in results["rows"] if (r["problem"], r["size"]) != (problem, arguments.size)] + [row]
        with tempfile.TemporaryDirectory() as folder:
            known = Path(folder) / "reference.npz"
            # The reference is not what is measured: it has five times as long.
            row |= _process(problem, "reference", known, arguments, 5 * arguments.seconds)
            for method in (name for name, build in METHODS.items() if build is not None):
                row["methods"][method] = _process(problem, method, known, arguments, arguments.seconds)
                write_json(RESULTS, results)
                print(problem, method, row["methods"][method], flush=True)


def _process(problem: str, method: str, known: Path, arguments: argparse.Namespace, seconds: int) -> dict[str, Any]:
    """What a child reported before it ended, and why it ended where that was not its end."""
    command = [sys.executable, "-m", "benchmarks.cvxpy_layers.large", "--problems", problem, "--child", method]
    command += ["--known", str(known), "--size", str(arguments.size), "--batch", str(arguments.batch)]
    room = int(arguments.gigabytes * 2**30)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (room, room))

    run = subprocess.run(command, capture_output=True, text=True, errors="replace", preexec_fn=limit)
    record: dict[str, Any] = {}
    for line in run.stdout.splitlines():
        if line.startswith("{"):
            record |= json.loads(line)
    if run.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        record["ended"] = f"stopped after {seconds} s"
    elif run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.strip()] or ["?"]
        record["ended"] = f"signal {-run.returncode}" if run.returncode < 0 else lines[-1][:200]
    return record


def _child(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    standard = PROBLEMS[arguments.problems[0]](arguments.size)
    values = [value.requires_grad_() for value in standard.values(arguments.batch)]
    weights = torch.randn(
        (arguments.batch, *standard.variables[0].shape), dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    if arguments.child == "reference":
        _reference(standard, values, weights, arguments.known)
        return
    _say({"stage": "set-up"})
    start = time.process_time()
    build = METHODS[arguments.child]
    assert build is not None
    layer = build(standard)
    built = time.process_time()
    _say({"setup": built - start, "stage": "forward"})
    x = layer(*values)
    solved = time.process_time()
    _say({"forward": solved - built, "stage": "backward"})
    found = gradient(x, values, weights)
    end = time.process_time()
    known = np.load(arguments.known)
    slope = float((found * direction_like(values[0])).flatten(1).sum(1).sum())
    _say(
        {
            "backward": end - solved,
            "stage": "done",
            "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "x_error": float(np.abs(x[0].detach().numpy() - known["x"]).max()),
            "gradient_error": abs(slope - float(known["slope"])) / max(abs(float(known["slope"])), 1e-12),
        }
    )


def _reference(standard: Standard, values: list[torch.Tensor], weights: torch.Tensor, known: Path) -> None:
    """Solutions whose optimality conditions hold to rounding, a central difference, and CVXPY's opinion of one sample."""
    layer = CvxpyLayer(standard.problem, standard.parameters, standard.variables, on_failure="ignore")
    direction = direction_like(values[0])
    with torch.no_grad():
        solution = layer.solve(*values)
        ends = [(layer(values[0] + s * STEP * direction, *values[1:])[0] * weights).sum() for s in (1, -1)]
    np.savez(known, x=solution.variables[0].numpy(), slope=float(ends[0] - ends[1]) / (2 * STEP))
    _say(
        {
            "variables": layer.canonical.n,
            "rows": layer.canonical.m,
            "reference_residual": float(solution.residual.max()),
        }
    )
    _say({"agreement_with_cvxpy": agreement(standard, values, solution)})


def _say(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
