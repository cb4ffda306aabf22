"""The programs and their halves, and what is measured on them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lp_layers import reference
from benchmarks.lp_layers.problems import Row, general, grid, knapsack
from benchmarks.lp_steps.rules import Case, fitted, rules, score
from benchmarks.lp_steps.sets import ACCURACY, LARGEST, Balance, Sets, iterations
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[2]
TUNING = (
    "assignment 10x10",
    "transport 10x20",
    "sparse equations",
    "set cover",
    "flow with capacities",
    "b-matching",
    "generalized network",
    "grid 5",
    "grid 15",
    "knapsack 50",
)
HELD_OUT = (
    "assignment 20x20",
    "multi-commodity flow",
    "sparse inequalities",
    "facility location",
    "portfolio",
    "scheduling",
    "grid 10",
    "grid 20",
    "knapsack 500",
)
GAMMAS = (1.0, 0.1, 0.01)
STEPS = np.logspace(-1.55, 2.2, 25)
BATCH = 6
STARTS = (0.1, 0.32, 1.0, 3.2, 10.0)  # times the fitted step, for the step that balances itself


def program(name: str) -> Row:
    """A row of the benchmark with fewer samples."""
    kind, _, size = name.partition(" ")
    sized = {"grid": grid, "knapsack": knapsack}
    return sized[kind](int(size), batch=BATCH) if kind in sized else general(name, batch=BATCH)


def measured(name: str, gamma: float) -> Case:
    """Run every step that the theorem allows."""
    row = program(name)
    sets, exact = Sets.of(row), reference.solve(row, gamma)
    steps = STEPS[STEPS * gamma < 1.9]
    cost, answer = (sets.lift(part).repeat(len(steps), 1) for part in (row.cost, exact.x))
    each = torch.from_numpy(steps).repeat_interleave(BATCH)
    residual, x = (
        found.view(-1, BATCH).median(1).values.numpy() for found in iterations(sets, cost, answer, gamma, each)
    )
    size = len(sets.offset)
    features = {
        "rank": float(sets.rank),
        "variables": float(size),
        "free": float(size - sets.rank),
        "share of rank": sets.rank / size,
        "condition": sets.condition,
        "closest point": float(sets.offset.norm()) / size**0.5,
        "solution": float(np.sqrt((exact.x**2).mean())),
    }
    return Case(name, gamma, features, steps, residual, x)


def balanced(case: Case, start: float) -> Case:
    """The case with the one step `start`, balanced on the way."""
    row = program(case.name)
    sets, exact = Sets.of(row), reference.solve(row, case.gamma)
    step = torch.full((BATCH,), start, dtype=torch.float64)
    found = iterations(sets, sets.lift(row.cost), sets.lift(exact.x), case.gamma, step, Balance())
    residual, x = (np.array([float(part.median())]) for part in found)
    return Case(case.name, case.gamma, case.features, np.array([start]), residual, x)


def compare(cases: Sequence[Case], constant: float, exponent: float) -> dict[str, Any]:
    """The fitted step, off by a factor, that stays and that balances itself: iterations over those of the best step."""
    kept: dict[str, Any] = {}
    for off in STARTS:
        stays, balances = [], []
        for case in cases:
            start, best = off * constant * case.gamma**-exponent, float(case.x.min())
            start = min(start, LARGEST / case.gamma)  # both may use the whole relaxation
            stays.append(case.of(start) / best)
            balances.append(float(balanced(case, start).x[0]) / best)
        kept[f"{off:g}"] = {
            name: {"mean": float(np.exp(np.log(ratios).mean())), "largest": float(max(ratios))}
            for name, ratios in (("stays", stays), ("balances", balances))
        }
    return kept


def judge(result: dict[str, Any], cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Score every rule on both halves, into `result`; the halves."""
    halves = {half: [case for case in cases if case.name in result[half]] for half in ("tuning", "held_out")}
    result["rules"] = {
        name: {half: score(rule, of) for half, of in halves.items()} for name, rule in rules(halves["tuning"])
    }
    for name, found in result["rules"].items():
        print(f"{name:50s} {found['tuning']['mean']:.2f} tuning, {found['held_out']['mean']:.2f} held out", flush=True)
    return halves


def counted(result: dict[str, Any]) -> list[Case]:
    """The cases of a file, so that a changed rule is judged without counting again."""
    cases = []
    for title, case in result["cases"].items():
        name, gamma = title.rsplit(", gamma ", 1)
        steps, x, residual = (np.array(case[key]) for key in ("steps", "x", "residual"))
        cases.append(Case(name, float(gamma), case["features"], steps, residual, x))
    return cases


def main(description: str) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lp_steps", description=description)
    parser.add_argument("--programs", nargs="+", default=[*TUNING, *HELD_OUT], metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "lp_steps.json")
    parser.add_argument("--rules", action="store_true", help="judge the rules again by the iterations that are on file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.rules:
        result = json.loads(options.out.read_text())
        judge(result, counted(result))
        write_json(options.out, result)
        return
    cases: list[Case] = []
    result: dict[str, Any] = {
        "command": "python -m benchmarks.lp_steps",
        "accuracy": ACCURACY,
        "tuning": [name for name in TUNING if name in options.programs],
        "held_out": [name for name in HELD_OUT if name in options.programs],
        "machine": machine(),
        "cases": {},
    }
    for name in options.programs:
        for gamma in GAMMAS:
            case = measured(name, gamma)
            cases.append(case)
            result["cases"][f"{name}, gamma {gamma:g}"] = {
                "features": dict(case.features),
                "steps": case.steps.tolist(),
                "x": case.x.tolist(),
                "residual": case.residual.tolist(),
            }
            write_json(options.out, result)
            best = float(case.steps[case.x.argmin()])
            print(f"{name:22s} gamma {gamma:<5g} best step {best:6.3g}, {case.x.min():5.0f} iterations", flush=True)
    halves = judge(result, cases)
    write_json(options.out, result)
    constant, exponent, _ = fitted(halves["tuning"], None)
    result["balance"] = {half: compare(of, constant, exponent) for half, of in halves.items()}
    write_json(options.out, result)
    print(result["balance"])
    print(f"written: {options.out}")
