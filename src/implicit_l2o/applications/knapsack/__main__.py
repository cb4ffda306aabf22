"""All methods at all numbers of items, and their settings: `python -m implicit_l2o.applications.knapsack --help`.

    python -m implicit_l2o.applications.knapsack tune         # writes results/knapsack_tuning.json
    python -m implicit_l2o.applications.knapsack run          # writes results/knapsack_sizes.json by those settings
    python scripts/check_knapsack.py                          # computes its regrets again, from the decisions on file

Both can be interrupted: what was trained is on file, and is not trained again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from implicit_l2o.applications.knapsack.problems import BATCH, Problem
from implicit_l2o.applications.knapsack.records import collect, load, save
from implicit_l2o.applications.knapsack.sizes import (
    EPOCHS,
    GAMMA,
    METHODS,
    WEIGHT_AVERAGE,
    Setting,
    decide,
    references,
    run,
    train,
)
from implicit_l2o.losses import normalized_regret
from implicit_l2o.report import machine, write_json
from implicit_l2o.training.fit import quiet

NOISE = {2: 0.05, 4: 0.5}
SIZES = {2: (50, 100, 200, 300, 400, 500, 600, 700, 750), 4: (20, 100, 500)}
ALL_AT = {2: (50, 100), 4: (20, 100)}
MOST_AT = {2: (500, 750), 4: (500,)}  # at the other sizes the quick methods alone
QUICK = ("fenchel_young", "solution", "two_stage", "spo_plus")
MOST = (*QUICK, "solution_exact", "cvxpylayers", "pyepo_pfyl")

# As many for every method.
TRIALS = tuple(Setting(learning_rate=rate, level=level) for level in (0.0, 3.0, 6.0) for rate in (3e-3, 1e-2))
TUNING_SEEDS = (200, 201)  # in no table
TUNING_ITEMS = 100
# The settings of cvxpylayers are those that are best for the same training by our exact gradient, a hundred times faster, in
# about as many epochs as it can afford.
STAND_IN = {"cvxpylayers": ("solution_exact", 8)}
# The same loss over the same oracle; and what takes three times as long, which gets no trials of its own.
SAME = {"pyepo_spo_plus": "spo_plus", "fenchel_young_perturbed": "fenchel_young"}


def tune(methods: Sequence[str], degrees: Sequence[int], folder: Path, target: Path) -> None:
    """Train every method with every setting on the tuning data, and choose by the regret on contexts of theirs."""
    for degree in degrees:
        for method in (name for name in methods if name not in SAME):
            name, epochs = STAND_IN.get(method, (method, EPOCHS))
            for trial, setting in enumerate(TRIALS):
                for seed in TUNING_SEEDS:
                    problem = Problem(degree, NOISE[degree], TUNING_ITEMS, seed)
                    kept = folder / problem.name / f"{method}_{trial}.npz"
                    if kept.exists():
                        continue
                    with quiet():
                        task, data, record = train(problem, name, setting, epochs=epochs, progress=True)
                    contexts, best, values, *_ = data.splits.test.tensors
                    chosen = decide(task, contexts)
                    save(kept, chosen, record | {"regret": float(normalized_regret(chosen, -values, best))})
    write_json(target, _tuning(folder))


def _tuning(folder: Path) -> dict[str, Any]:
    """The regrets of all trials on file, and the best setting, by degree and method."""
    found: dict[str, Any] = {"seeds": list(TUNING_SEEDS), "items": TUNING_ITEMS}
    for degree in SIZES:
        methods: dict[str, Any] = {}
        for method in METHODS:
            tried = SAME.get(method, method)
            rows = []
            for trial in range(len(TRIALS)):
                problems = [Problem(degree, NOISE[degree], TUNING_ITEMS, seed) for seed in TUNING_SEEDS]
                kept = [folder / problem.name / f"{tried}_{trial}.npz" for problem in problems]
                if all(path.exists() for path in kept):
                    records = [load(path, TUNING_ITEMS)[1] for path in kept]
                    regrets = [record["regret"] for record in records]
                    rows.append({"setting": records[0]["setting"], "regret": sum(regrets) / len(regrets)})
            if rows:
                best = min(rows, key=lambda row: row["regret"])
                methods[method] = {"setting": best["setting"], "trials": rows}
        found[f"degree_{degree}"] = methods
    return found


def sweep(options: argparse.Namespace) -> None:
    """Train what is not yet on file, and write the table."""
    settings = json.loads(options.settings.read_text())
    for seed in options.seeds:
        for degree in options.degrees:
            for count in SIZES[degree] if options.items is None else options.items:
                problem = Problem(degree, NOISE[degree], count, seed)
                references(problem, options.runs)
                for method in options.methods:
                    if method in methods_at(degree, count):
                        setting = Setting(**settings[f"degree_{degree}"][method]["setting"])
                        run(problem, method, setting, options.runs, cap=_cap(method, options.cap))
    result = {
        "command": "python -m implicit_l2o.applications.knapsack run",
        "seeds": options.seeds,
        "epochs": EPOCHS,
        "batch": BATCH,
        "gamma": GAMMA,
        "weight_average": WEIGHT_AVERAGE,
        "cap_seconds": options.cap,
        **collect(
            options.runs,
            options.seeds,
            {degree: (NOISE[degree], SIZES[degree]) for degree in SIZES},
            ("floor", "constant", "untrained", *METHODS),
        ),
        "machine": machine(),
    }
    write_json(options.out / "knapsack_sizes.json", result)


def methods_at(degree: int, count: int) -> Sequence[str]:
    """The methods that are trained for a number of items."""
    if count in ALL_AT[degree]:
        return tuple(METHODS)
    return MOST if count in MOST_AT[degree] else QUICK


def _cap(method: str, seconds: float) -> float | None:
    """Only the method that would take hours is cut short."""
    return seconds if method == "cvxpylayers" else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m implicit_l2o.applications.knapsack", description="All methods at all numbers of items."
    )
    parser.add_argument("what", choices=("tune", "run"), help="choose settings on data of their own, or make the table")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--degrees", nargs="*", type=int, default=list(SIZES), choices=list(SIZES), metavar="DEGREE")
    parser.add_argument("--items", nargs="*", type=int, default=None, metavar="COUNT")
    parser.add_argument("--seeds", nargs="*", type=int, default=[135, 136, 137], metavar="SEED", help="of the data")
    parser.add_argument("--cap", type=float, default=40.0, metavar="SECONDS", help="of a training through cvxpylayers")
    parser.add_argument("--runs", type=Path, default=Path("runs/knapsack_sizes"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--settings", type=Path, default=Path("results/knapsack_tuning.json"), metavar="FILE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, and tune or run; the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    if options.what == "tune":
        tune(options.methods, options.degrees, options.runs / "tuning", options.settings)
    else:
        sweep(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
