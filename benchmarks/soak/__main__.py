"""Solve random problems by every splitting and every solver, and count the answers that call themselves right and are wrong.

python -m benchmarks.soak --problems 10000    # writes results/soak.json
"""

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import implicit_l2o as il2o
from benchmarks.soak.check import judge
from benchmarks.soak.methods import METHODS, Method
from benchmarks.soak.problems import KINDS, SOLVABLE, Batch, draw
from implicit_l2o.report import machine, write_json

SIZES = ((2, 1), (6, 2), (10, 3), (20, 6))  # variables and equations
STEPS = 1000


def solvers(stopping: il2o.Stopping) -> tuple[il2o.AbstractFixedPointSolver, ...]:
    """Every solver."""
    return il2o.KrasnoselskiiMann(stopping), il2o.Anderson(stopping), il2o.Halpern(stopping)


def batches(
    problems: int, size: int, seed: int, max_steps: int = STEPS
) -> list[tuple[Batch, torch.dtype, il2o.Stopping]]:
    """Problems of every size in both dtypes, under both rules of stopping, with doubled and scaled equations among them."""
    rules = il2o.Stopping(max_steps=max_steps), il2o.Stopping(atol=1e-6, rtol=0.0, max_steps=max_steps)
    found = []
    for number, start in enumerate(range(0, problems, size)):
        n, m = SIZES[number % len(SIZES)]
        options = {"doubled_row": number % 3 == 1, "scaled_rows": number % 5 == 2}
        dtype = (torch.float64, torch.float32)[number // 2 % 2]
        batch = draw(min(size, problems - start), n, m, seed + number, **options)
        found.append((batch, dtype, rules[(number + number // 4) % 2]))
    return found


def run(
    problems: int, size: int, seed: int, methods: tuple[Method, ...] = METHODS, max_steps: int = STEPS
) -> Iterator[dict[str, Any]]:
    """Every problem by every splitting and solver: how the solves ended, and which answers are wrong; after each batch."""
    done = 0
    ends: dict[tuple[str, str], Counter[str]] = {}
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    excess: dict[tuple[str, str], float] = {}
    wrong: list[dict[str, Any]] = []
    for number, (batch, dtype, stopping) in enumerate(batches(problems, size, seed, max_steps)):
        for method in methods:
            splitting = method.build(batch, dtype)
            for solver in solvers(stopping):
                key = (method.name, type(solver).__name__)
                solution = il2o.solve(
                    splitting, torch.zeros_like(batch.x, dtype=dtype), solver=solver, on_failure="ignore"
                )
                verdict = judge(batch, method, splitting, solution)
                names = [il2o.Status(int(status)).name for status in solution.status]
                ends.setdefault(key, Counter()).update(names)
                for kind, name in zip(batch.kind.tolist(), names, strict=True):
                    kinds[KINDS[kind]][name] += 1
                excess[key] = max(excess.get(key, 0.0), float(verdict.excess.max()))
                for at in verdict.wrong.nonzero().flatten().tolist():
                    row = {"splitting": key[0], "solver": key[1], "batch": number, "sample": at}
                    row |= {
                        "kind": KINDS[int(batch.kind[at])],
                        "dtype": str(dtype),
                        "excess": float(verdict.excess[at]),
                    }
                    wrong.append(row)
        done += len(batch.kind)
        yield _record(done, ends, excess, kinds, wrong)


def _record(
    done: int,
    ends: dict[tuple[str, str], Counter[str]],
    excess: dict[tuple[str, str], float],
    kinds: dict[str, Counter[str]],
    wrong: list[dict[str, Any]],
) -> dict[str, Any]:
    rows = [
        {"splitting": splitting, "solver": solver, "excess": excess[splitting, solver]}
        | {"wrong": sum((row["splitting"], row["solver"]) == (splitting, solver) for row in wrong)}
        | {status.name: count[status.name] for status in il2o.Status if status != il2o.Status.ACTIVE}
        for (splitting, solver), count in ends.items()
    ]
    return {
        "problems": done,
        "solves": sum(sum(count.values()) for count in ends.values()),
        "rows": rows,
        "kinds": {kind: dict(count) for kind, count in kinds.items()},
        "wrong": wrong,
    }


def against_clarabel(problems: int, seed: int) -> dict[str, Any]:
    """The known solutions beside those of an interior point method, on problems with equations."""
    import clarabel
    from scipy import sparse

    worst, count = 0.0, 0
    batch = draw(problems, 6, 2, seed, doubled_row=False, scaled_rows=False)
    c = batch.linear(equations=True, game=False)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    for at in range(problems):
        if int(batch.kind[at]) >= SOLVABLE or float(batch.unit[at]) != 1.0:
            continue  # without a solution, or in units that an interior point method does not like either
        Q, slope, A = batch.Q[at].numpy(), c[at].numpy(), batch.A.numpy()
        lower, upper = batch.lower[at].numpy(), batch.upper[at].numpy()
        rows = sparse.csc_matrix(np.concatenate([A, np.eye(len(slope)), -np.eye(len(slope))]))
        limits = np.concatenate([batch.b[at].numpy(), upper, -lower])
        cones = [clarabel.ZeroConeT(len(A)), clarabel.NonnegativeConeT(2 * len(slope))]
        found = clarabel.DefaultSolver(sparse.csc_matrix(np.triu(Q)), slope, rows, limits, cones, settings).solve()
        x = batch.x[at].numpy()
        value = x @ Q @ x / 2 + slope @ x
        worst = max(worst, abs(found.obj_val - value) / max(1.0, abs(value)))
        count += 1
    return {"problems": count, "largest_difference": worst}


def main() -> int:
    """Run and record; the exit status is 1 where an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/soak.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore", il2o.ConvergenceWarning)
    torch.set_num_threads(1)
    started = time.monotonic()
    known = {"clarabel": against_clarabel(500, options.seed), "machine": machine()}
    result: dict[str, Any] = {"wrong": [], "solves": 0}
    with torch.no_grad():
        for result in run(options.problems, options.batch, options.seed):
            # After every batch, so that a run that is ended early leaves what it did.
            write_json(options.out, result | known | {"seconds": round(time.monotonic() - started)})
            print(f"{result['problems']} problems: {len(result['wrong'])} wrong answers", flush=True)
    for row in result["wrong"][:20]:
        print(row)
    print(f"{result['solves']} solves, {len(result['wrong'])} wrong answers")
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
