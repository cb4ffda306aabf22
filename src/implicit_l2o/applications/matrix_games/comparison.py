"""Every method on the same games, each with its test answers on file; and the table of them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.matrix_games.baselines import PayoffNetTask
from implicit_l2o.applications.matrix_games.data import MatrixGameData
from implicit_l2o.applications.matrix_games.task import AbstractGameTask, BlackBoxTask, FixedPointTask, PayoffTask
from implicit_l2o.data.matrix_games import Kind
from implicit_l2o.training import Convergence, Optimization, TimeLimit, count_parameters, fit
from implicit_l2o.training.fit import one_thread, quiet

TARGET = 1e-5  # of the test error
STOP = 2e-6  # a training ends when the validation error is below: the test error, of other contexts, scatters around it


@dataclass(frozen=True)
class Setting:
    """What is tuned, among as many for every method.

    Args:
        learning_rate: constant.
        loss: see the tasks.
    """

    learning_rate: float
    loss: str

    def optimization(self) -> Optimization:
        """For the tasks."""
        return Optimization(learning_rate=self.learning_rate, schedule="constant")


@dataclass(frozen=True)
class Method:
    """A way to predict equilibria.

    Args:
        make: the task for so many actions, a temperature and a setting.
        grid: the settings that were compared.
        chosen: the best of them on validation data.
        seconds: the most of training.
    """

    make: Callable[[int, float, Setting], AbstractGameTask]
    grid: Sequence[Setting]
    chosen: Setting
    seconds: float


def _grid(rates: Sequence[float], losses: Sequence[str]) -> tuple[Setting, ...]:
    return tuple(Setting(rate, loss) for loss in losses for rate in rates)


def _payoff(actions: int, temperature: float, setting: Setting) -> AbstractGameTask:
    options: Any = {"loss": setting.loss, "optimization": setting.optimization()}
    return PayoffTask(actions=actions, temperature=temperature, **options)


def _fixed_point(form: Any) -> Callable[[int, float, Setting], AbstractGameTask]:
    def make(actions: int, temperature: float, setting: Setting) -> AbstractGameTask:
        loss: Any = setting.loss
        return FixedPointTask(
            actions=actions, form=form, temperature=temperature, loss=loss, optimization=setting.optimization()
        )

    return make


def _payoff_net(actions: int, temperature: float, setting: Setting) -> AbstractGameTask:
    loss: Any = setting.loss
    return PayoffNetTask(actions=actions, loss=loss, optimization=setting.optimization())


def _black_box(actions: int, temperature: float, setting: Setting) -> AbstractGameTask:
    loss: Any = setting.loss
    return BlackBoxTask(actions=actions, temperature=temperature, loss=loss, optimization=setting.optimization())


_BOTH = ("squared", "likelihood")
METHODS: Mapping[str, Method] = {
    "payoff_response": Method(_payoff, _grid((0.03, 0.1, 0.3, 1.0), ("response",)), Setting(1.0, "response"), 30.0),
    "payoff_jfb": Method(_payoff, _grid((0.1, 1.0), _BOTH), Setting(1.0, "likelihood"), 10.0),
    "payoff_net": Method(_payoff_net, _grid((0.1, 1.0), _BOTH), Setting(1.0, "likelihood"), 20.0),
    "nfpn": Method(_fixed_point("published"), _grid((1e-3, 1e-2), _BOTH), Setting(1e-2, "likelihood"), 8.0),
    "nfpn_cocoercive": Method(
        _fixed_point("cocoercive"), _grid((3e-3, 1e-2), _BOTH), Setting(1e-2, "likelihood"), 10.0
    ),
    "black_box": Method(_black_box, _grid((3e-3, 1e-2), _BOTH), Setting(1e-2, "likelihood"), 12.0),
}
CONSTANT = "constant"


def train(
    method: str, data: MatrixGameData, setting: Setting, seconds: float, *, progress: bool = False
) -> tuple[AbstractGameTask, dict[str, Any]]:
    """Train one method until its validation error is at the target, or so long.

    Args:
        method: a name in `METHODS`.
        data: of the run's seed.
        setting: what is tuned.
        seconds: the most of training steps, of the processor; validation not counted.
        progress: show a bar.

    Returns:
        The task with the weights of its best epoch, and what is to be recorded.
    """
    torch.manual_seed(data.run_seed)
    task = METHODS[method].make(data.actions, data.law.temperature, setting)
    limit, convergence = TimeLimit(seconds, processor=True), Convergence()
    stop = EarlyStopping("val/mse", stopping_threshold=STOP, patience=10**9, check_finite=False, verbose=False)
    with quiet(), one_thread():
        training = fit(
            task,
            data,
            epochs=100_000,
            callbacks=[limit, convergence, stop],
            progress=progress,
            label=f"n={data.actions} {method}",
        )
    record = {
        "seconds": seconds - limit.left,
        "epochs": len(training.history),
        "best_epoch": training.best_epoch,
        "validation_mse": min(float(epoch["val/mse"]) for epoch in training.history),
        "parameters": count_parameters(task),
        "converged_training": min(convergence.training) if convergence.training else None,
        "converged_validation": min(convergence.validation) if convergence.validation else None,
        "setting": asdict(setting),
    }
    return task, record


def run(
    method: str, data: MatrixGameData, folder: Path, *, seconds: float | None = None, progress: bool = True
) -> None:
    """Train one method and keep its test answers and its record; nothing is done where they are on file.

    Args:
        method: a name in `METHODS`.
        data: of the run's seed.
        folder: of the games' size and seed.
        seconds: None takes the method's.
        progress: show a bar.
    """
    target = folder / f"{method}.npz"
    if target.exists():
        return
    chosen, started = METHODS[method], time.process_time()
    task, record = train(method, data, chosen.chosen, chosen.seconds if seconds is None else seconds, progress=progress)
    record["cpu_seconds"] = time.process_time() - started  # validation and checkpoints included
    answers, solve = answer(task, data.splits.test.tensors[0])
    _save(target, answers, record | solve)


@torch.no_grad()
def answer(task: AbstractGameTask, contexts: Tensor, size: int = 250) -> tuple[Tensor, dict[str, Any]]:
    """The equilibria that a method predicts, and how its solves fared."""
    task.eval()
    parts = [task.infer(part) for part in contexts.split(size)]
    found: dict[str, Any] = {}
    if parts[0].status is not None and parts[0].residual is not None:
        status = torch.cat([part.status for part in parts if part.status is not None])
        found["converged_test"] = float((status == il2o.Status.CONVERGED).double().mean())
        found["residual"] = max(float(part.residual.max()) for part in parts if part.residual is not None)
    return torch.cat([part.x for part in parts]), found


def references(data: MatrixGameData, folder: Path) -> None:
    """Keep the test games and their equilibria, and the answer of the predictor that ignores its context."""
    if (folder / f"{CONSTANT}.npz").exists():
        return
    contexts, x, upper = data.splits.test.tensors
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "truth.npz", contexts=contexts, x=x, upper=upper)
    _save(folder / f"{CONSTANT}.npz", data.splits.train.tensors[1].mean(0).expand_as(x), {})


def tune(data: MatrixGameData, seconds: float, methods: Sequence[str]) -> dict[str, Any]:
    """The validation error of every setting of every method after the same time, smallest first.

    Args:
        data: of a seed that no table reports.
        seconds: of training for each setting.
        methods: names in `METHODS`.
    """
    found: dict[str, Any] = {}
    for name in methods:
        rows = []
        for setting in METHODS[name].grid:
            record = train(name, data, setting, seconds)[1]
            rows.append({**asdict(setting), "mse": record["validation_mse"], "seconds": record["seconds"]})
        found[name] = sorted(rows, key=lambda row: (max(row["mse"], STOP), row["seconds"]))
    return found


def collect(folder: Path, cases: Mapping[str, tuple[int, Kind]], seeds: Sequence[int]) -> dict[str, Any]:
    """The scores of everything that is on file, by case and method, one value a seed.

    Args:
        folder: of all runs.
        cases: number of actions and kind of the law, by name.
        seeds: of the data.
    """
    found: dict[str, Any] = {}
    for case in cases:
        rows: dict[str, Any] = {}
        for name in (*METHODS, CONSTANT):
            present = [seed for seed in seeds if (folder / case / f"seed_{seed}" / f"{name}.npz").exists()]
            scores = [_scores(folder / case / f"seed_{seed}", name) for seed in present]
            if scores:
                rows[name] = {"seeds": present} | {key: [score[key] for score in scores] for key in scores[0]}
        if rows:
            found[case] = rows
    return found


def _scores(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / f"{name}.npz") as kept, np.load(folder / "truth.npz") as truth:
        x, exact, upper = (torch.from_numpy(part) for part in (kept["x"], truth["x"], truth["upper"]))
        record = json.loads(str(kept["record"]))
    cyclic = folder.parent.name == "cyclic"
    task = BlackBoxTask(actions=x.shape[1] // 2, temperature=0.0 if cyclic else 1.0)
    metrics = task.fresh_metrics()
    metrics.update(x, exact, upper)
    u, v = x.chunk(2, 1)
    violation = max(float((part.sum(1) - 1).abs().max() + part.clamp(max=0).abs().max()) for part in (u, v))
    scores = {key: float(value) for key, value in metrics.compute().items()}
    return scores | {"violation": violation} | {key: value for key, value in record.items() if key != "setting"}


def _save(target: Path, x: Tensor, record: Mapping[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.npz")
    np.savez_compressed(part, x=x.numpy(), record=json.dumps(dict(record)))
    part.replace(target)  # whole or not at all
