"""Every method with the same network on the same maps, each with its test paths on file; and the table of them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.warcraft.baselines import PyEPOTask, TwoStageTask
from implicit_l2o.applications.warcraft.certificates import VIOLATION
from implicit_l2o.applications.warcraft.data import WarcraftData
from implicit_l2o.applications.warcraft.task import AbstractMapTask, WarcraftTask
from implicit_l2o.data.warcraft import CellGrid
from implicit_l2o.interop.pyepo import DBB, PFYL
from implicit_l2o.training import Calibration, Optimization, Samples, Splits, count_parameters, fit
from implicit_l2o.training.calibrate import calibrate_task
from implicit_l2o.training.fit import one_thread, quiet

WEIGHT_AVERAGE = 0.99
_HAMMING = 70 * 144  # PyEPO takes the mean over a batch, the published black box the sum over each map's cells


@dataclass(frozen=True)
class Method:
    """A way to train the network.

    Args:
        make: the task, its network initialised by the run's seed.
        epochs: passes over the training maps, so many that all methods take about the same time.
        sees: what it learns from.
    """

    make: Callable[[], AbstractMapTask]
    epochs: int
    sees: str = "paths"


# The settings were chosen on maps of data seeds from 500 on, for each method among as many; see the page.
_RATE = Optimization(learning_rate=5e-3)
METHODS: Mapping[str, Method] = {
    "fenchel_young": Method(
        lambda: WarcraftTask(gamma=0.01, level=1.0, optimization=_RATE),
        10,
    ),
    "solution": Method(
        lambda: WarcraftTask(loss="solution", gamma=0.3, level=1.0, training_tolerance=0.2, optimization=_RATE),
        10,
    ),
    "pyepo_pfyl": Method(lambda: PyEPOTask(PFYL(samples=1, sigma=0.03), level=1.0, optimization=_RATE), 15),
    "pyepo_dbb": Method(
        lambda: PyEPOTask(
            DBB(lambd=20.0 * _HAMMING, regret=False), level=1.0, optimization=Optimization(learning_rate=3e-3)
        ),
        15,
    ),
    "two_stage": Method(lambda: TwoStageTask(optimization=_RATE), 16, "costs"),
}
REFERENCES = ("constant", "untrained")


def run(method: str, data: WarcraftData, folder: Path, *, epochs: int | None = None, progress: bool = True) -> None:
    """Train one method and keep its test paths and its record; nothing is done where they are on file.

    Args:
        method: a name in `METHODS`.
        data: of the run's seed.
        folder: of the run's seed.
        epochs: None takes the method's.
        progress: show a bar.
    """
    target = folder / f"{method}.npz"
    if target.exists():
        return
    torch.manual_seed(data.run_seed)
    task = METHODS[method].make()
    started = time.process_time()
    with quiet(), one_thread():
        training = fit(
            task,
            data,
            epochs=METHODS[method].epochs if epochs is None else epochs,
            weight_average=WEIGHT_AVERAGE,
            progress=progress,
            label=method,
        )
    record: dict[str, Any] = {
        "epochs": len(training.history),
        "best_epoch": training.best_epoch,
        "cpu_seconds": time.process_time() - started,
        "parameters": count_parameters(task),
    }
    if isinstance(task, WarcraftTask):
        samples = _examined(task, data)
        record |= _certified(task, samples)
        target.parent.mkdir(parents=True, exist_ok=True)
        for name, (figure, _) in task.figures(samples, data.splits).items():
            figure.savefig(folder / f"{method}_{name.lower()}.svg")
    _save(target, decide(task, data.splits.test.tensors[0]), record)


def references(data: WarcraftData, folder: Path) -> None:
    """The test paths that need no training: the same for every map, and those of the network as it starts."""
    test = data.splits.test.tensors[0]
    torch.manual_seed(data.run_seed)
    task = WarcraftTask()
    constant = task.constant(data.splits.train)
    _save(folder / "constant.npz", constant.expand(len(test), -1, -1), {})
    _save(folder / "untrained.npz", decide(task.eval(), test), {})


@torch.no_grad()
def decide(task: AbstractMapTask, images: Tensor, size: int = 250) -> Tensor:
    """The paths on maps, `size` at once."""
    return torch.cat([task.grid.shortest_paths(task.costs(part)) for part in images.split(size)])


def layer_time(images: int = 70, repeats: int = 20) -> dict[str, Any]:
    """Milliseconds of the layer on a batch of costs of the order of a training's, forward and backward; the median.

    Args:
        images: of the batch.
        repeats: of the measurement.
    """
    torch.manual_seed(0)
    grid = CellGrid()
    lp = grid.program()
    cells = (0.2 + 2 * torch.rand(images, grid.side, grid.side)).requires_grad_()
    found: dict[str, Any] = {"batch": images, "n": lp.n, "m": lp.m_eq}
    for name, layer in (
        ("training", il2o.LPLayer(lp, tolerance=0.2, max_steps=300)),
        ("exact", il2o.LPLayer(lp, tolerance=1e-3, polish=True)),
    ):
        times = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            layer(grid.arc_costs(cells)).x.square().sum().backward()
            times.append(1e3 * (time.perf_counter() - started))
        found[f"{name}_ms"] = float(np.median(times[1:]))
    return found


def collect(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """The scores of everything that is on file for all seeds, one value a seed.

    Args:
        folder: of all runs.
        seeds: of the data.
    """
    methods: dict[str, Any] = {}
    for name in (*METHODS, *REFERENCES):
        targets = [folder / f"seed_{seed}" / f"{name}.npz" for seed in seeds]
        if all(target.exists() for target in targets):
            rows = [_scores(target) for target in targets]
            methods[name] = {key: [row[key] for row in rows] for key in rows[0]}
    return methods


def write_truth(splits: Splits, folder: Path) -> None:
    """Keep the true costs and cheapest paths of the test maps beside the paths of the methods."""
    folder.mkdir(parents=True, exist_ok=True)
    _, paths, costs = splits.test.tensors
    np.savez_compressed(folder / "truth.npz", paths=paths.numpy().astype(np.uint8), costs=costs.numpy())


def _scores(target: Path) -> dict[str, Any]:
    with np.load(target) as kept, np.load(target.parent / "truth.npz") as truth:
        paths, best, costs = (
            torch.from_numpy(part).float() for part in (kept["paths"], truth["paths"], truth["costs"])
        )
        record = json.loads(str(kept["record"]))
    metrics = WarcraftTask().fresh_metrics()
    metrics.update(paths, costs, best)
    return {name: float(value) for name, value in metrics.compute().items()} | record


@torch.no_grad()
def _examined(task: WarcraftTask, data: WarcraftData) -> Samples:
    """Everything known of the test maps, the doubt calibrated on the validation maps."""
    calibrate_task(task, data, Calibration(p_pass=0.9, p_warn=0.05, p_fail=0.05, resolution=1e-6))
    batch = data.splits.test.tensors
    parts = [task.examine(part) for part in batch[0].split(250)]
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Samples(names=tuple(c.name for c in task.all_certificates()), batch=tuple(batch), **found)


def _certified(task: WarcraftTask, samples: Samples) -> dict[str, Any]:
    """What the certificates say of the test maps."""
    assert samples.residual is not None
    _, best, costs = samples.batch
    metrics = {label.name.lower(): task.fresh_metrics() for label in il2o.Label}
    record: dict[str, Any] = {
        "violation": float(samples.values[:, samples.names.index(VIOLATION)].max()),
        "residual": float(samples.residual.max()),
        "converged": float((samples.status == il2o.Status.CONVERGED).double().mean()),
    }
    for label in il2o.Label:
        where = samples.worst == label
        key = label.name.lower()
        record[f"share_{key}"] = float(where.double().mean())
        metrics[key].update(samples.answer[where], costs[where], best[where])
        record[f"exact_{key}"] = float(metrics[key].compute()["exact"]) if bool(where.any()) else None
    return record


def _save(target: Path, paths: Tensor, record: Mapping[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.npz")
    np.savez_compressed(part, paths=paths.numpy().astype(np.uint8), record=json.dumps(dict(record)))
    part.replace(target)  # whole or not at all
