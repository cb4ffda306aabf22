"""Every method at every number of items on several data sets, each with its decisions on file."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.knapsack.baselines import ValueTask
from implicit_l2o.applications.knapsack.data import KnapsackData
from implicit_l2o.applications.knapsack.peers import CvxpyLayersTask, PyEPOTask
from implicit_l2o.applications.knapsack.problems import BATCH, Problem
from implicit_l2o.applications.knapsack.records import load, save
from implicit_l2o.applications.knapsack.task import AbstractKnapsackTask, KnapsackTask
from implicit_l2o.data.knapsack import Items
from implicit_l2o.interop.pyepo import DBB, PFYL, SPOPlus
from implicit_l2o.training import Optimization, count_parameters, fit
from implicit_l2o.training.fit import one_thread, quiet

EPOCHS = 25
WEIGHT_AVERAGE = 0.98
GAMMA = 1.0


@dataclass(frozen=True)
class Setting:
    """What is tuned, as much for every method.

    Args:
        learning_rate: at the start; it falls to zero by a cosine.
        level: of the predicted values at the start (see `value_network`).
        weight_decay: of AdamW.
    """

    learning_rate: float = 1e-2
    level: float = 0.0
    weight_decay: float = 0.01

    def optimization(self) -> Optimization:
        """For the tasks."""
        return Optimization(learning_rate=self.learning_rate, weight_decay=self.weight_decay)


Make = Callable[[Items, Setting], AbstractKnapsackTask]


def _value_task(loss: Any, backward: il2o.AbstractBackward | None = None) -> Make:
    return lambda items, setting: ValueTask(
        loss=loss,
        items=items,
        gamma=GAMMA,
        level=setting.level,
        backward=backward,
        optimization=setting.optimization(),
        seed=0,
    )


def _solution_task(
    loss: Any, backward: il2o.AbstractBackward | None = None, *, perturbation: float = 0.0, copies: int = 1
) -> Make:
    return lambda items, setting: KnapsackTask(
        loss=loss,
        items=items,
        gamma=GAMMA,
        level=setting.level,
        perturbation=perturbation,
        copies=copies,
        backward=backward,
        optimization=setting.optimization(),
        seed=0,
    )


def _pyepo_task(criterion: Any) -> Make:
    return lambda items, setting: PyEPOTask(
        criterion, items=items, level=setting.level, optimization=setting.optimization(), seed=0
    )


# The value network of all is the same, with the same weights at the start.
METHODS: dict[str, Make] = {
    "fenchel_young": _solution_task("fenchel_young"),
    "fenchel_young_perturbed": _solution_task("fenchel_young", perturbation=1.0, copies=3),
    "solution": _solution_task("solution"),
    "solution_exact": _solution_task("solution", il2o.Implicit()),  # the gradient of cvxpylayers, for all epochs
    "cvxpylayers": lambda items, setting: CvxpyLayersTask(
        items=items, gamma=GAMMA, level=setting.level, optimization=setting.optimization(), seed=0
    ),
    "pyepo_pfyl": _pyepo_task(PFYL(samples=3, sigma=1.0)),
    "two_stage": _value_task("least_squares"),
    "spo_plus": _value_task("spo_plus"),
    "spo_plus_relaxed": _value_task("spo_plus_relaxed"),
    "regret": _value_task("regret", il2o.Implicit()),
    "pyepo_spo_plus": _pyepo_task(SPOPlus()),
    "pyepo_dbb": _pyepo_task(DBB(lambd=10.0)),
}


def train(
    problem: Problem,
    method: str,
    setting: Setting,
    *,
    epochs: int = EPOCHS,
    cap: float | None = None,
    progress: bool = False,
) -> tuple[AbstractKnapsackTask, KnapsackData, dict[str, Any]]:
    """Train one method on one problem.

    Args:
        problem: the data.
        method: a name in `METHODS`.
        setting: what was tuned.
        epochs: passes over the training data.
        cap: most seconds of training; as many epochs are run as fit in, at least one and at most `epochs`.
        progress: show a bar.

    Returns:
        The task, its data, and what is to be recorded: seconds an epoch, epochs, parameters.
    """
    data = problem.data()
    data.setup("fit")
    torch.manual_seed(problem.seed)
    task = METHODS[method](problem.items, setting)
    if cap is not None:
        batches = -(-len(data.splits.train) // BATCH)
        epochs = min(epochs, max(1, int(cap / (batches * step_seconds(task, data)))))
    with one_thread():
        training = fit(
            task,
            data,
            epochs=epochs,
            weight_average=WEIGHT_AVERAGE,
            progress=progress,
            label=f"{problem.name} {method}",
        )
    record = {
        "seconds_per_epoch": training.seconds_per_epoch,
        "epochs": epochs,
        "best_epoch": training.best_epoch,
        "parameters": count_parameters(task),
        "setting": asdict(setting),
    }
    return task, data, record


def step_seconds(task: AbstractKnapsackTask, data: KnapsackData) -> float:
    """How long a training step takes without the update, after one to warm up."""
    batch = [field[:BATCH] for field in data.splits.train.tensors]

    def step() -> None:
        task.loss(task.training_inference(batch[0]), batch).backward()

    step()
    started = time.perf_counter()
    step()
    task.zero_grad()
    return time.perf_counter() - started


@torch.no_grad()
def decide(task: AbstractKnapsackTask, contexts: Tensor) -> Tensor:
    """The selections on contexts."""
    return task.decoder(-task.values(contexts))


def run(
    problem: Problem,
    method: str,
    setting: Setting,
    folder: Path,
    *,
    epochs: int = EPOCHS,
    cap: float | None = None,
    progress: bool = True,
) -> None:
    """Train one method and keep its test decisions and its record; nothing is done where they are on file.

    Args:
        problem: the data.
        method: a name in `METHODS`.
        setting: what was tuned.
        folder: of all runs.
        epochs: see `train`.
        cap: see `train`.
        progress: show a bar.
    """
    target = folder / problem.name / f"{method}.npz"
    if target.exists() and load(target, problem.count)[1]["setting"] == asdict(setting):
        return
    with quiet():
        task, data, record = train(problem, method, setting, epochs=epochs, cap=cap, progress=progress)
    save(target, decide(task, data.splits.test.tensors[0]), record)


def references(problem: Problem, folder: Path) -> None:
    """Keep the decisions that need no training: the best, the floor, the constant, and the untrained network's."""
    target = folder / problem.name
    if (target / "untrained.npz").exists():
        return
    data = problem.data()
    contexts, best, values, mean_values, _ = data.splits.test.tensors
    torch.manual_seed(problem.seed)
    task = METHODS["fenchel_young"](problem.items, Setting())
    constant = task.constant(data.splits.train).expand_as(best)
    target.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target / "data.npz", contexts=contexts, values=values.numpy().astype(np.uint16))
    save(target / "best.npz", best, {})
    save(target / "floor.npz", task.decoder(-mean_values), {})
    save(target / "constant.npz", constant, {})
    save(target / "untrained.npz", decide(task, contexts), {})
