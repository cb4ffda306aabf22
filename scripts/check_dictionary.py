"""Compute the numbers of results/dictionary.json again, from the signals on file.

    python scripts/check_dictionary.py runs/dictionary

Nothing of the package is imported. Dictionary, measurement matrix and test signals are drawn here from the seed; errors
and fidelities are computed in float64; and for the first signals of every seed HiGHS solves the learned problem as a linear
program, whose objective the answers must reach.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog

ROOT = Path(__file__).parents[1]
SIGNAL, ATOMS, MEASUREMENTS, DENSITY = 250, 50, 100, 0.1
TEST_STREAM = 2  # after training and validation
FIDELITY = 1e-5  # the stated tolerance, relative
MOST_STEPS = 400
TARGET = 2.0e-3
SOLVED = 3  # signals of each seed that HiGHS solves again
GAP = 5e-3  # relative, of the objective: what a residual of 1e-3 is worth

Array = NDArray[np.float64]


def problem(seed: int) -> tuple[Array, Array]:
    """The true dictionary and the measurement matrix."""
    generator = torch.Generator().manual_seed(seed)
    M = torch.randn(SIGNAL, ATOMS, generator=generator)
    A = torch.randn(MEASUREMENTS, SIGNAL, generator=generator)
    return M.double().numpy(), (A / A.norm(dim=0)).double().numpy()


def test_signals(seed: int, count: int) -> Array:
    """Sparse combinations of the atoms."""
    mixed = (seed * 1_000_003 + TEST_STREAM + 1) * 2_654_435_761 % 2**63
    generator = torch.Generator().manual_seed(mixed)
    present = torch.rand(count, ATOMS, generator=generator) < DENSITY
    s = present * torch.randn(count, ATOMS, generator=generator)
    return s.double().numpy() @ problem(seed)[0].T


def infidelity(x: Array, d: Array, A: Array) -> float:
    """The largest relative distance of `A x` to `d`."""
    size = np.linalg.norm(d, axis=1)
    gap = np.linalg.norm(x @ A.T - d, axis=1)
    return float(np.max(np.where(size > 0, gap / np.where(size > 0, size, 1.0), np.where(gap > 0, np.inf, 0.0))))


def least_objective(K: Array, A: Array, d: Array) -> float:
    """`min |K x|_1 s.t. A x = d`, over `y = K x` split into its positive and negative part."""
    B = A @ np.linalg.inv(K)
    found = linprog(np.ones(2 * SIGNAL), A_eq=np.hstack([B, -B]), b_eq=d, bounds=(0, None), method="highs")
    return float(found.fun)


def complaints(folder: Path, seed: int, recorded: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What does not agree for one seed; `recorded` holds the test numbers by method."""
    _, A = problem(seed)
    with np.load(folder / "predictions.npz") as kept:
        found = {name: kept[name].astype(float) for name in ("answer", "target", "inputs", "steps", "status")}
    with np.load(folder / "baselines.npz") as kept:
        answers = {"model": found["answer"], **{name: kept[name].astype(float) for name in kept.files}}
    target, d = found["target"], found["inputs"]
    if not np.allclose(target, test_signals(seed, len(target)), atol=1e-4):
        yield "the test signals are not those of the seed"
    if infidelity(target, d, A) > 1e-6:
        yield "the measurements are not those of the test signals"
    for name, x in answers.items():
        mse = float(np.mean((x - target) ** 2))
        if abs(mse - recorded[name]["mse"]) > 1e-4 * mse + 1e-10:
            yield f"{name}: mse is {mse:.6g}, recorded {recorded[name]['mse']:.6g}"
        value = recorded[name].get("infidelity")
        if value is not None and not np.isclose(infidelity(x, d, A), value, rtol=0.2, atol=2e-7):
            yield f"{name}: infidelity is {infidelity(x, d, A):.3g}, recorded {value:.3g}"
    x = found["answer"]
    if float(np.mean((x - target) ** 2)) > TARGET:
        yield f"the mse is above {TARGET}"
    if infidelity(x, d, A) > FIDELITY:
        yield f"an answer misses the fidelity {FIDELITY}"
    if found["steps"].max() > MOST_STEPS:
        yield f"an answer took {found['steps'].max():.0f} steps"
    K = transform(folder)
    for i in range(SOLVED):
        best, reached = least_objective(K, A, d[i]), float(np.abs(K @ x[i]).sum())
        if reached > (1 + GAP) * best + 1e-6:
            yield f"signal {i}: |Kx|_1 is {reached:.6g}, HiGHS finds {best:.6g}"


def transform(folder: Path) -> Array:
    """The learned transform, the inverse of the dictionary in the model file."""
    state = torch.load(folder / "model.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    return np.linalg.inv(state["model.D"].double().numpy())


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every seed of the results; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the numbers of the dictionary table again.")
    parser.add_argument("runs", type=Path, nargs="?", default=ROOT / "runs" / "dictionary")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "dictionary.json")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = json.loads(options.results.read_text())
    wrong = 0
    for place, seed in enumerate(results["seeds"]):
        rows = {
            method: {
                name: values["values"][place] for name, values in row.items() if values["values"][place] is not None
            }
            for method, row in results["test"].items()
        }
        for text in complaints(options.runs / f"seed_{seed}", seed, rows):
            print(f"seed {seed}: {text}")
            wrong += 1
    print(f"{len(results['seeds'])} seeds checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
