"""Trainings that are killed, interrupted and resumed, each in its own process; `test_resume.py` looks at what they left.

    python lossless_runs.py FOLDER [NAME OF A RUN ...]

imports Lightning once and forks a process a run.
"""

import json
import os
import random
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, LearningRateMonitor
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanSquaredError, Metric

import implicit_l2o as il2o
from implicit_l2o.training import (
    AbstractData,
    AbstractTask,
    AtomicCheckpointIO,
    BoardLogger,
    Checkpoints,
    EpochTimer,
    GradientCosine,
    MetricsLogger,
    RandomState,
    SolverStatistics,
    Splits,
    WarmWeightAverage,
)

EPOCHS, STEPS, SAMPLES = 6, 5, 20


def data(size: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(size, 3, generator=generator)
    return TensorDataset(d, d.abs().sum(1, keepdim=True))


class Data(AbstractData):
    """Its training loader knows its position within the epoch."""

    def load(self) -> Splits:
        return Splits(data(SAMPLES), data(8), data(8))


class Task(pl.LightningModule):
    """A network with dropout whose loss draws from every generator there is; `event` is called in every step."""

    def __init__(self, event: Callable[["Task"], None]) -> None:
        super().__init__()
        self.save_hyperparameters({"width": 8, "folder": Path("somewhere"), "rate": np.float32(0.5)})
        self.event = event
        self.model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        d, target = batch
        noise = torch.randn(()) + random.gauss(0, 1) + np.random.randn()  # noqa: NPY002
        loss = (self.model(d) - target + 0.1 * noise).square().mean()
        self.event(self)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        self.log("train/step_loss", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        d, target = batch
        loss = (self.model(d) - target + 0.1 * torch.randn(())).square().mean()
        self.log("val/loss", loss, sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        steps = int(
            self.trainer.estimated_stepping_batches
        )  # Lightning makes the loaders for it, before it resumes them
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Nearest(AbstractTask):
    """A small task of the kind that applications have: the learned quadratic cost over the nonnegative orthant."""

    def __init__(self, event: Callable[["Nearest"], None]) -> None:
        super().__init__(
            il2o.ImplicitLayer(
                encoder=nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 1)),
                build=lambda w: il2o.ForwardBackward(
                    il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.NonnegativeOrthant()), step=0.5
                ),
                x0=torch.zeros_like,
            )
        )
        self.event = event

    def loss(self, inference: il2o.Inference, batch: Any) -> Tensor:
        if self.training:
            self.event(self)
        return (inference.x - batch[1]).square().mean()

    def metrics(self) -> dict[str, Metric]:
        return {"error": MeanSquaredError()}


class Silent(pl.Callback):
    """Draws where nobody looks."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.rand(3 + trainer.global_rank)  # each process has states of its own


def nothing(task: Task) -> None:
    pass


def train(
    folder: Path,
    *,
    event: Callable[[Any], None] = nothing,
    resume: bool = False,
    resumable: bool = False,
    patience: int = 100,
    callbacks: tuple[pl.Callback, ...] = (),
    monitor: str = "val/loss",
    minutes: float | None = None,
    devices: int = 1,
    **options: Any,
) -> pl.Trainer:
    pl.seed_everything(3, verbose=False)
    if resume:
        torch.rand(7)  # a resumed process has drawn something else by now
    task = Task(event)
    trainer = pl.Trainer(
        **({"max_epochs": EPOCHS} | options),
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=[
            RandomState(),
            Silent(),
            EMAWeightAveraging(decay=0.9),
            EarlyStopping(monitor, patience=patience),
            LearningRateMonitor("step"),
            Checkpoints(folder / "checkpoints", minutes=minutes),
            *callbacks,
        ],
        logger=[MetricsLogger(folder), BoardLogger(folder)],
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    size, checkpoint = SAMPLES // STEPS, "last" if resume else None
    if resumable:
        trainer.fit(task, datamodule=Data(batch_size=size), ckpt_path=checkpoint)
    else:
        loader = DataLoader(data(SAMPLES), batch_size=size, shuffle=True)  # the order comes from the global generator
        trainer.fit(task, loader, DataLoader(data(8), batch_size=8), ckpt_path=checkpoint)
    if trainer.is_global_zero:
        torch.save(task.state_dict(), folder / "final.pt")
    return trainer


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, action: Callable[[], None]) -> Callable[[Any], None]:
    def event(task: Task) -> None:
        if task.trainer.global_step == step:
            action()

    return event


class KillIn(pl.Callback):
    """Ends the process in a hook, when so many steps are done."""

    def __init__(self, hook: str, step: int) -> None:
        def end(trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == step:
                kill()

        setattr(self, hook, end)


def kill_while_writing(step: int) -> Callable[[Any], None]:
    """From this step on, torch.save dies in the middle."""
    whole = torch.save

    def save(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        class Dying:
            written = 0

            def write(self, piece: Any) -> int:
                self.written += len(piece)
                count = file.write(piece)
                if self.written > 8000:
                    file._file.flush()
                    kill()
                return count

            def flush(self) -> None:
                pass

        whole(content, Dying(), *args, **kwargs)

    def die() -> None:
        torch.save = save

    return at_step(step, die)


def interrupted(run: Callable[[], Any]) -> None:
    """A run that must end by Lightning's exit after an interrupt."""
    try:
        run()
    except SystemExit as end:
        print("interrupted, exit code", end.code)
        return
    raise AssertionError("the run was not interrupted")


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def interrupt_in_validation(folder: Path) -> None:
    class Interrupt(pl.Callback):
        def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.global_step == 2 * STEPS:
                os.kill(os.getpid(), signal.SIGINT)

    interrupted(lambda: train(folder, callbacks=(Interrupt(),)))


def train_application(folder: Path, event: Callable[[Any], None] = nothing, *, resume: bool = False) -> None:
    """With everything that `il2o run` adds."""
    pl.seed_everything(3, verbose=False)
    task, average = Nearest(event), WarmWeightAverage(0.9)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=[
            *(average, RandomState(), EpochTimer(), SolverStatistics(every=3), GradientCosine(every=4)),
            Checkpoints(folder / "checkpoints"),
        ],
        logger=[MetricsLogger(folder), BoardLogger(folder)],
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=Data(batch_size=SAMPLES // STEPS), ckpt_path="last" if resume else None)
    torch.save(task.state_dict(), folder / "final.pt")


def on_rank(rank: int, action: Callable[[], None]) -> Callable[[], None]:
    return lambda: action() if int(os.environ["RANK"]) == rank else None


def on_two(run: Callable[[Path], Any]) -> Callable[[Path], None]:
    """The run on two processes that are started as torchrun starts them."""

    def both(folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"TORCHELASTIC_RUN_ID": "0", "GROUP_RANK": "0"}
        child = os.fork()
        rank = "1" if child == 0 else "0"
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        if child == 0:
            finish(lambda: run(folder))
        try:
            run(folder)
        finally:
            print("the other process ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    return both


def finish(run: Callable[[], Any]) -> None:
    """End this process after a run."""
    code = 1
    try:
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


# Name of the run: the processes that make it, one after another, in one folder.
RUNS: dict[str, list[Callable[[Path], Any]]] = {
    "whole": [lambda f: train(f)],
    "killed in the first step": [
        lambda f: train(f, event=at_step(0, kill)),
        lambda f: train(f, resume=True),
    ],
    "killed in a step": [
        lambda f: train(f, event=at_step(17, kill)),
        lambda f: train(f, resume=True),
    ],
    "killed twice while writing": [
        lambda f: train(f, event=kill_while_writing(8)),
        lambda f: train(f, resume=True, event=kill_while_writing(22)),
        lambda f: train(f, resume=True),
    ],
    "killed after the best, before the last": [
        lambda f: train(f, event=at_step(12, lambda: kill_after_rename("best.ckpt"))),
        lambda f: train(f, resume=True),
    ],
    "killed after the checkpoint, before the log": [
        lambda f: train(f, event=at_step(12, lambda: kill_after_rename("last.ckpt"))),
        lambda f: train(f, resume=True),
    ],
    "killed between epochs": [
        lambda f: train(f, callbacks=(KillIn("on_train_epoch_start", 10),)),
        lambda f: train(f, resume=True),
    ],
    "interrupted in a step, loader without position": [
        lambda f: interrupted(lambda: train(f, event=at_step(12, send(signal.SIGINT)))),
        lambda f: train(f, resume=True),
    ],
    "interrupted in validation": [interrupt_in_validation, lambda f: train(f, resume=True)],
    "resumable": [lambda f: train(f, resumable=True)],
    "resumable, interrupted": [
        lambda f: interrupted(lambda: train(f, resumable=True, event=at_step(12, send(signal.SIGINT)))),
        lambda f: train(f, resumable=True, resume=True),
    ],
    "resumable, interrupted at once": [
        lambda f: interrupted(
            lambda: train(f, resumable=True, event=at_step(12, lambda: [send(signal.SIGINT)() for _ in "12"] and None))
        ),
        lambda f: train(f, resumable=True, resume=True),
    ],
    "resumable, terminated twice": [
        lambda f: interrupted(lambda: train(f, resumable=True, event=at_step(11, send(signal.SIGTERM)))),
        lambda f: interrupted(lambda: train(f, resumable=True, resume=True, event=at_step(13, send(signal.SIGTERM)))),
        lambda f: train(f, resumable=True, resume=True),
    ],
    "resumable, killed": [
        lambda f: train(f, resumable=True, minutes=1e-9, event=at_step(13, kill)),
        lambda f: train(f, resumable=True, minutes=1e-9, resume=True),
    ],
    "steps": [lambda f: train(f, max_epochs=-1, max_steps=23)],
    "steps, killed": [
        lambda f: train(f, max_epochs=-1, max_steps=23, event=at_step(17, kill)),
        lambda f: train(f, max_epochs=-1, max_steps=23, resume=True),
    ],
    "steps, resumable": [lambda f: train(f, max_epochs=-1, max_steps=23, resumable=True)],
    "steps, resumable, interrupted": [
        lambda f: interrupted(
            lambda: train(f, max_epochs=-1, max_steps=23, resumable=True, event=at_step(12, send(signal.SIGINT)))
        ),
        lambda f: train(f, max_epochs=-1, max_steps=23, resumable=True, resume=True),
    ],
    "accumulated": [lambda f: train(f, resumable=True, accumulate_grad_batches=2)],
    "accumulated, interrupted": [
        lambda f: interrupted(
            lambda: train(f, resumable=True, accumulate_grad_batches=2, event=at_step(7, send(signal.SIGINT)))
        ),
        lambda f: train(f, resumable=True, accumulate_grad_batches=2, resume=True),
    ],
    "validated inside": [lambda f: train(f, resumable=True, val_check_interval=2)],
    "validated inside, interrupted": [
        lambda f: interrupted(
            lambda: train(f, resumable=True, val_check_interval=2, event=at_step(11, send(signal.SIGINT)))
        ),
        lambda f: train(f, resumable=True, val_check_interval=2, resume=True),
    ],
    "application": [train_application],
    "application, killed": [
        lambda f: train_application(f, at_step(17, kill)),
        lambda f: train_application(f, resume=True),
    ],
    "application, interrupted": [
        lambda f: interrupted(lambda: train_application(f, at_step(15, send(signal.SIGINT)))),
        lambda f: interrupted(lambda: train_application(f, at_step(17, send(signal.SIGINT)), resume=True)),
        lambda f: train_application(f, resume=True),
    ],
    "two processes": [on_two(lambda f: train(f, resumable=True, devices=2))],
    "two processes, killed": [
        on_two(lambda f: train(f, resumable=True, devices=2, event=at_step(17, on_rank(1, kill)))),
        on_two(lambda f: train(f, resumable=True, devices=2, resume=True)),
    ],
    "two processes, interrupted": [
        on_two(
            lambda f: interrupted(
                lambda: train(f, resumable=True, devices=2, event=at_step(12, on_rank(1, send(signal.SIGINT))))
            )
        ),
        on_two(lambda f: train(f, resumable=True, devices=2, resume=True)),
    ],
    "stopped early": [lambda f: train(f, patience=1, monitor="step_count", callbacks=(Worse(),))],
    "stopped early, killed": [
        lambda f: train(f, patience=1, monitor="step_count", callbacks=(Worse(), KillIn("on_train_end", 2 * STEPS))),
        lambda f: train(f, patience=1, monitor="step_count", callbacks=(Worse(),), resume=True),
    ],
}


class Worse(pl.Callback):
    """Logs a number that only grows."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("step_count", float(trainer.global_step), sync_dist=True)


def kill_after_rename(name: str) -> None:
    rename = os.replace

    def replace(source: Any, target: Any) -> None:
        rename(source, target)
        if Path(target).name == name:
            kill()

    os.replace = replace


def main(root: Path, names: list[str]) -> None:
    ends: dict[str, list[dict[str, Any]]] = {}
    for name in names or RUNS:
        folder = root / name
        folder.mkdir(parents=True)
        for process in RUNS[name]:
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                with (folder / "output.txt").open("a") as output:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                finish(lambda process=process, folder=folder: process(folder))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            files = sorted(path.name for path in (folder / "checkpoints").glob("*"))
            ends.setdefault(name, []).append({"code": code, "files": files})
    (root / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own affair
    main(Path(sys.argv[1]), sys.argv[2:])
