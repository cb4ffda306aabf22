"""Repeat the experiment over seeds and write its table: `python -m implicit_l2o.applications.shortest_path --help`."""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from implicit_l2o.applications.shortest_path.experiment import (
    FIRST_DATA_SEED,
    Settings,
    experiment,
    initial_network,
    summary,
    test_regret,
    train,
)
from implicit_l2o.applications.shortest_path.model import FlowModel
from implicit_l2o.applications.shortest_path.task import FenchelYoungTask, SolutionTask
from implicit_l2o.report import Interval, interval, machine, write_json
from implicit_l2o.training import one_thread


def variants(seed: int, settings: Settings) -> dict[str, float]:
    """Test regret of other trainings of the same network: by the Fenchel-Young loss, and without perturbation."""
    data = settings.data(seed)
    flow = FlowModel(data.grid, settings.gamma)
    plain = replace(settings.recipe, perturbation=0.0, copies=1)
    networks = [initial_network(data, seed) for _ in range(2)]
    tasks = {
        "regret_fenchel_young": (
            FenchelYoungTask(networks[0], flow, settings.recipe, seed=seed, training=data.train),
            settings.recipe,
        ),
        "regret_unperturbed": (SolutionTask(networks[1], flow, plain, seed=seed, training=data.train), plain),
    }
    regrets = {}
    for (name, (task, recipe)), network in zip(tasks.items(), networks, strict=True):
        with one_thread():
            train(task, data, recipe, seed=seed, label=f"shortest path, {name.removeprefix('regret_')}")
            regrets[name] = test_regret(flow, network, data.test)
    return regrets


def _summary(values: list[float]) -> dict[str, float | None]:
    mean, half = interval(values)
    return {"mean": mean, "half_width_95": half}


def table(seeds: list[int], settings: Settings) -> dict[str, Any]:
    """All seeds, and the excess over the floor across them."""
    start = time.perf_counter()
    rows = []
    for seed in seeds:
        row: dict[str, Any] = {"seed": seed, "data_seed": FIRST_DATA_SEED + seed}
        row |= summary(experiment(seed, settings)) | variants(seed, settings)
        rows.append(row)
        print(f"data seed {row['data_seed']}: regret {row['regret']:.4f}, floor {row['regret_floor']:.4f}", flush=True)
    methods = [name for name in rows[0] if name.startswith("regret_") and isinstance(rows[0][name], float)]
    excess = {
        name.removeprefix("regret_"): _summary([row[name] - row["regret_floor"] for row in rows])
        for name in ["regret", *methods]
        if name != "regret_floor"
    }
    return {
        "seeds": rows,
        "excess": excess,
        "excess_expected": _summary([row["excess_expected"] for row in rows]),
        "machine": machine() | {"threads": 1},
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Parse the options, run, write."""
    parser = argparse.ArgumentParser(prog="python -m implicit_l2o.applications.shortest_path", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="default: 0 1 2 3 4")
    parser.add_argument("--out", type=Path, default=Path("results/shortest_path_5x5.json"))
    options = parser.parse_args()
    result = table(options.seeds, Settings())
    write_json(options.out, result)
    for name, excess in result["excess"].items():
        print(f"{name:>16}: {Interval(excess['mean'], excess['half_width_95'])} above the floor")


if __name__ == "__main__":
    main()
