"""Repeat an experiment over seeds and write its results: `python -m implicit_l2o.applications.learned_cost --help`."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from implicit_l2o.applications.learned_cost import depth
from implicit_l2o.applications.learned_cost.experiment import TASKS, Settings, experiment
from implicit_l2o.applications.learned_cost.figures import draw_costs, draw_depth
from implicit_l2o.report import interval, machine, write_json

Figures = Mapping[str, Mapping[str, float]]  # method -> figures


def over_seeds(runs: Sequence[Figures]) -> dict[str, dict[str, Any]]:
    """Mean, 95 % half-width and the values of every figure of every method; for a `max_` figure the largest as well."""
    joined: dict[str, dict[str, Any]] = {}
    for method in runs[0]:
        joined[method] = {}
        for key in runs[0][method]:
            values = [run[method][key] for run in runs]
            mean, half = interval(values)
            joined[method][key] = {"mean": mean, "half_width_95": half, "max": max(values), "seeds": values}
    return joined


def repeat(run: Callable[[int], Figures], seeds: Sequence[int], label: str) -> dict[str, dict[str, Any]]:
    """Run every seed, with one line of progress each."""
    runs = []
    for seed in seeds:
        start = time.perf_counter()
        runs.append(run(seed))
        errors = ", ".join(f"{method} {figures['decision_error']:.3f}" for method, figures in runs[-1].items())
        print(f"{label}, seed {seed}, {time.perf_counter() - start:.0f} s: decision error {errors}", flush=True)
    return over_seeds(runs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, run, write."""
    options = _parser().parse_args(arguments)
    progress = not options.quiet
    command = "python -m implicit_l2o.applications.learned_cost"
    if options.experiment in ("costs", "all"):
        start, settings = time.perf_counter(), _with_epochs(Settings(), options.epochs)
        tasks = {
            name: repeat(
                lambda seed, name=name: experiment(name, seed, settings, progress=progress), options.seeds, name
            )
            for name in TASKS
        }
        record = {"command": f"{command} --experiment costs", "seeds": options.seeds, "tasks": tasks}
        _write(options.out / "learned_cost.json", record, settings, start)
        if options.figures is not None:
            draw_costs(tasks, options.figures)
    if options.experiment in ("depth", "all"):
        start, settings = time.perf_counter(), _with_epochs(depth.SETTINGS, options.epochs)
        steps = repeat(
            lambda seed: depth.depth_experiment(seed, settings, progress=progress), options.seeds, "unrolled"
        )
        record = {"command": f"{command} --experiment depth", "seeds": options.seeds, "steps": steps}
        _write(options.out / "unrolled_vs_implicit.json", record, settings, start)
        if options.figures is not None:
            draw_depth(steps, options.figures)


def _with_epochs(settings: Settings, epochs: int | None) -> Settings:
    return settings if epochs is None else replace(settings, recipe=replace(settings.recipe, epochs=epochs))


def _write(path: Path, record: Mapping[str, Any], settings: Settings, start: float) -> None:
    seconds = time.perf_counter() - start
    write_json(path, {**record, "settings": asdict(settings), "machine": machine(), "seconds": seconds})
    print(f"written: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m implicit_l2o.applications.learned_cost", description=__doc__)
    parser.add_argument("--experiment", choices=["costs", "depth", "all"], default="all", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--epochs", type=int, help="default: as the settings say")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the JSON files (%(default)s)")
    parser.add_argument("--figures", type=Path, help="folder for the figures; none are drawn without")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


if __name__ == "__main__":
    sys.exit(main())
