"""One training on one process or on two, for test_distributed.py: `python two_processes.py FOLDER` runs it on two.

Each process writes what it saw to FOLDER/rank0.pt and rank1.pt. The processes are forked after the imports, with the
variables that torchrun sets, so Lightning finds them as it finds torchrun's.
"""

import logging
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.experiment.run import Options, run
from implicit_l2o.training import (
    AbstractData,
    AbstractTask,
    Calibration,
    CollectSamples,
    GradientCosine,
    Optimization,
    PredictionWriter,
    RandomState,
    SolverStatistics,
    Splits,
    gather_samples,
)
from implicit_l2o.training.calibrate import calibrate_task
from implicit_l2o.training.sampler import TrainingSampler

PROCESSES = 2


class Targets(AbstractData):
    """Points of the simplex behind a linear map; 40 to train on, 101 to validate and 101 to test."""

    def __init__(self, *, double: bool = False, broken: Sequence[int] = (), size: int = 40) -> None:
        super().__init__(batch_size=8, evaluation_batch=10, seed=1)
        self.dtype = torch.float64 if double else torch.float32
        self.broken = broken  # training samples whose inputs are not finite
        self.sizes = [size, 101, 101]

    def load(self) -> Splits:
        d = torch.randn(sum(self.sizes), 4, dtype=self.dtype)
        target = (d @ torch.randn(4, 5, dtype=self.dtype)).softmax(dim=1)
        d[list(self.broken)] = torch.nan
        parts = zip(d.split(self.sizes), target.split(self.sizes), strict=True)
        return Splits(*(TensorDataset(*part) for part in parts))


class Task(AbstractTask):
    """The layer of the README, in front of it a network; one of its parameters is in no loss."""

    def __init__(self, backward: il2o.AbstractBackward, *, unused: bool = False) -> None:
        super().__init__(
            il2o.ImplicitLayer(
                encoder=nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 5)),
                build=lambda w: il2o.DavisYin(
                    il2o.Problem(
                        F=il2o.QuadraticCost(linear=w, diagonal=0.5),
                        g=il2o.Box(lower=0.0),
                        h=il2o.AffineSet(w.new_ones(1, 5), w.new_ones(1)),
                    )
                ),
                x0=torch.zeros_like,
                solver=il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-5, rtol=0.0, max_steps=2000)),
                backward=backward,
                certificates=[il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(4e-6))],
                on_failure="ignore",
            ),
            optimization=Optimization(learning_rate=1e-2, schedule="constant"),
        )
        if unused:
            self.unused = nn.Linear(3, 2)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        return (inference.x - batch[1]).square().sum(dim=1).mean()

    def metrics(self) -> Mapping[str, torchmetrics.Metric]:
        return {
            "error": torchmetrics.MeanSquaredError(),
            "hits": torchmetrics.classification.MulticlassAccuracy(num_classes=5, average="micro"),
        }

    def update(
        self, metrics: torchmetrics.MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]
    ) -> None:
        metrics["error"].update(inference.x, batch[1])
        metrics["hits"].update(inference.x, batch[1].argmax(dim=1))

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        return [il2o.FixedPointResidual()]


class Recorder(pl.Callback):
    """The gradient of every step, as the optimizer sees it, and what every epoch logged."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []
        self.samples: list[Tensor] = []
        self.epochs: list[dict[str, float]] = []
        self.rows: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.samples.append(batch[0])

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        self.gradients.append(
            torch.cat([p.grad.flatten().clone() for p in pl_module.parameters() if p.grad is not None])
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.rows.append(len(batch.index))


def trainer(processes: int, folder: Path, callbacks: Sequence[pl.Callback], **options: Any) -> pl.Trainer:
    saves = any(isinstance(callback, pl.callbacks.ModelCheckpoint) for callback in callbacks)
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=saves,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks],
        **options,
    )


def train(processes: int, folder: Path, backward: il2o.AbstractBackward, *, double: bool) -> dict[str, Any]:
    """Two epochs, the calibration, the test and the prediction."""
    torch.manual_seed(2)
    task = Task(backward).to(torch.float64 if double else torch.float32)
    data, recorder, collected = Targets(double=double), Recorder(), CollectSamples()
    callbacks = [recorder, collected, SolverStatistics(), GradientCosine(every=4), PredictionWriter()]
    lightning = trainer(processes, folder, callbacks, max_epochs=2)
    lightning.fit(task, datamodule=data)
    weights = nn.utils.parameters_to_vector(task.parameters()).detach()
    calibrate_task(task, data, Calibration(p_pass=0.8, p_warn=0.1, p_fail=0.1))
    lightning.test(task, datamodule=data, verbose=False)
    test = {name: float(value) for name, value in lightning.callback_metrics.items()}
    lightning.predict(task, datamodule=data, return_predictions=False)
    return {
        "gradients": torch.stack(recorder.gradients),
        "weights": weights,
        "epochs": recorder.epochs,
        "test": test,
        "rows": sum(recorder.rows),
        "found": collected.found,
        "limits": [(c.rule.pass_limit, c.rule.warn_limit) for c in task.all_certificates()],
    }


def fail(processes: int, folder: Path) -> dict[str, Any]:
    """An epoch in whose first batch every sample of the second process is broken; a parameter that is never used."""
    torch.manual_seed(2)
    task, recorder = Task(il2o.JFB(), unused=True), Recorder()
    lightning = trainer(processes, folder, [recorder], max_epochs=1, limit_val_batches=0)
    first = next(iter(TrainingSampler(40, 8, seed=1)))
    lightning.fit(task, datamodule=Targets(broken=first[4:].tolist()))
    return {"gradients": torch.stack(recorder.gradients)}


def stop(processes: int, folder: Path) -> dict[str, Any]:
    """Eight steps, five an epoch, with a checkpoint."""
    torch.manual_seed(2)
    recorder = Recorder()
    saver = pl.callbacks.ModelCheckpoint(folder, filename="stopped", every_n_train_steps=8)
    lightning = trainer(processes, folder, [RandomState(), recorder, saver], max_steps=8, limit_val_batches=0)
    lightning.fit(Task(il2o.JFB()).double(), datamodule=Targets(double=True))
    return {"samples": recorder.samples}


def rest(processes: int, folder: Path) -> dict[str, Any]:
    """An epoch whose last batch has three samples; and a random number."""
    torch.manual_seed(2)
    recorder = Recorder()
    lightning = trainer(processes, folder, [RandomState(), recorder], max_epochs=1, limit_val_batches=0)
    lightning.fit(Task(il2o.JFB()), datamodule=Targets(size=43))
    return {"sizes": [len(samples) for samples in recorder.samples], "draw": float(torch.rand(()))}


def go_on(folder: Path, checkpoint: Path | None) -> dict[str, Any]:
    """Two epochs on one process, from the start or from a checkpoint."""
    torch.manual_seed(2)
    task, recorder = Task(il2o.JFB()).double(), Recorder()
    with quiet():
        lightning = trainer(1, folder, [RandomState(), recorder], max_epochs=2, limit_val_batches=0)
        lightning.fit(task, datamodule=Targets(double=True), ckpt_path=checkpoint, weights_only=checkpoint and True)
    return {"samples": recorder.samples, "weights": nn.utils.parameters_to_vector(task.parameters()).detach()}


def unequal(processes: int, rank: int) -> dict[str, Any]:
    """Samples gathered from processes that have 3 and 5 of them, with and without their places."""
    sizes = [3, 5] if processes > 1 else [8]
    start = sum(sizes[:rank])
    value = torch.arange(start, start + sizes[rank])
    index = (7 - value) if processes > 1 else value
    found = gather_samples({"value": value, "index": index})
    return {**found, "ranks": gather_samples({"value": value})["value"]}


CONFIG = """
seed_everything: 3
model: {class_path: two_processes.Task, init_args: {backward: {class_path: implicit_l2o.JFB}}}
data: {class_path: two_processes.Targets}
baselines:
  other:
    class_path: implicit_l2o.training.Trained
    init_args:
      epochs: 1
      task: {class_path: two_processes.Task, init_args: {backward: {class_path: implicit_l2o.Implicit}}}
trainer: {accelerator: cpu, max_epochs: 1}
"""


def experiment(processes: int, folder: Path) -> dict[str, Any]:
    """`il2o run` with a trained baseline; it ends with the processes apart."""
    config = folder / f"config{os.environ.get('RANK', 0)}.yaml"
    config.write_text(CONFIG)
    devices = [f"--trainer.devices={processes}", f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}"]
    try:
        return run(Options(config=[config], overrides=devices, folder=folder / "experiment", progress=False))[1][0]
    finally:
        os.environ.pop("PL_GLOBAL_SEED", None)  # else the processes that are started next begin with this seed


@contextmanager
def quiet() -> Iterator[None]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        yield


def everything(processes: int, folder: Path) -> dict[str, Any]:
    with quiet():
        found: dict[str, Any] = {
            "single": train(processes, folder / "single", il2o.JFB(), double=False),
            "jfb": train(processes, folder / "jfb", il2o.JFB(), double=True),
            "implicit": train(processes, folder / "implicit", il2o.Implicit(), double=True),
            "fail": fail(processes, folder),
            "stop": stop(processes, folder),
            "rest": rest(processes, folder),
        }
        if processes > 1:
            found["unequal"] = unequal(processes, int(os.environ["RANK"]))
        found["experiment"] = experiment(processes, folder)
    return found


def main(folder: Path) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(PROCESSES)}
    shared |= {"LOCAL_WORLD_SIZE": str(PROCESSES), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    children = []
    for rank in range(PROCESSES):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
                torch.save(everything(PROCESSES, folder), folder / f"rank{rank}.pt")
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)  # without the other's exit handlers
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
