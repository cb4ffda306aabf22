"""What a run of the system costs over a bare PyTorch loop on MNIST: the same model, batches, optimizer and validation.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/overhead.py --folder DIR      # writes results/overhead.json

Epochs of both alternate in one process, so that a passing load on the machine meets both: the bare epoch runs between two
epochs of the Trainer, under a random state of its own. Both begin with the same weights and the same random state and
have to end with the same loss. The system's epoch holds everything until the next one begins: training, validation,
metrics, statistics of the solver, loggers, the bar and the checkpoints, as `il2o run experiments/mnist.yaml` has them.
Wall time is what a user waits for; on a busy machine the processor time of this one process says more.
"""

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from implicit_l2o.applications.digits import DigitsTask
from implicit_l2o.applications.digits.task import random_shift
from implicit_l2o.experiment import ExperimentCLI
from implicit_l2o.report import machine, write_json
from implicit_l2o.training import AbstractData, quiet
from implicit_l2o.training.sampler import TrainingSampler

ROOT = Path(__file__).parents[1]
EXPERIMENT = ROOT / "experiments" / "mnist.yaml"
WARM_UP = 3  # steps before any clock runs


class Bare:
    """What one would write by hand."""

    def __init__(self, task: DigitsTask, data: AbstractData, *, steps: int, evaluations: int, epochs: int) -> None:
        self.model: nn.Module = copy.deepcopy(task.network)
        self.shift = task.shift
        self.images, self.labels = data.splits.train.tensors
        self.seen, self.seen_labels = data.splits.validation.tensors
        self.sampler = TrainingSampler(len(self.images), data.batch_size, seed=data.run_seed)
        self.evaluation_batch = data.evaluation_batch
        self.steps, self.evaluations = steps, evaluations
        setting = task.optimization
        groups = [
            {"params": [p for p in self.model.parameters() if p.ndim > 1], "weight_decay": setting.weight_decay},
            {"params": [p for p in self.model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=setting.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps * epochs)
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def epoch(self, number: int) -> None:
        """Train one epoch and validate."""
        self.model.train()
        self.sampler.set_epoch(number)
        total, count = torch.zeros(()), 0
        for _, index in zip(range(self.steps), self.sampler, strict=False):
            loss = self.step(self.images[index], self.labels[index])
            total, count = total + loss * len(index), count + len(index)
        self.losses.append(float(total) / count)
        self.accuracies.append(self.validate())

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimizer; the loss."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(random_shift(images, self.shift)).x, labels)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    @torch.no_grad()
    def validate(self) -> float:
        """The accuracy."""
        self.model.eval()
        right = count = 0
        for start in range(0, self.evaluations * self.evaluation_batch, self.evaluation_batch):
            images, labels = (part[start : start + self.evaluation_batch] for part in (self.seen, self.seen_labels))
            right, count = right + int((self.model(images).x.argmax(1) == labels).sum()), count + len(labels)
        return right / count


class Alternate(pl.Callback):
    """Runs a bare epoch after every epoch of the Trainer, and times both."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.times: dict[str, list[tuple[float, float]]] = {"system": [], "bare": []}
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self._random_state: Tensor | None = None
        self._started = _clocks()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The former epoch, with its checkpoints, is done."""
        if self._random_state is None:
            self._random_state = torch.get_rng_state()
        else:
            self._other()
        self._started = _clocks()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was logged."""
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.accuracies.append(float(trainer.callback_metrics["val/accuracy"]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last epoch is done."""
        self._other()

    def _other(self) -> None:
        self.times["system"].append(_since(self._started))
        assert self._random_state is not None
        own = torch.get_rng_state()
        torch.set_rng_state(self._random_state)
        started = _clocks()
        self.bare.epoch(len(self.times["bare"]))
        self.times["bare"].append(_since(started))
        self._random_state = torch.get_rng_state()
        torch.set_rng_state(own)


def _clocks() -> tuple[float, float]:
    """The wall, and the processor time of this process with all its threads."""
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float]) -> tuple[float, float]:
    wall, processor = _clocks()
    return wall - started[0], processor - started[1]


def arguments(options: argparse.Namespace, run: str) -> Iterator[str]:
    """For the experiment."""
    yield from (f"--config={EXPERIMENT}", f"--folder={run}", "--threads=1", f"--trainer.max_epochs={options.epochs}")
    if options.folder is not None:
        yield f"--data.init_args.folder={options.folder}"


def measure(options: argparse.Namespace) -> dict:
    """Train both and compare."""
    with tempfile.TemporaryDirectory() as run:
        experiment = ExperimentCLI(list(arguments(options, run)))
        task, data, trainer = experiment.model, experiment.datamodule, experiment.trainer
        assert isinstance(task, DigitsTask)
        data.prepare_data()
        every = len(data.splits.train), len(data.splits.validation)
        shares = [size if options.train is None else max(1, size * options.train // every[0]) for size in every]
        steps, evaluations = -(-shares[0] // data.batch_size), -(-shares[1] // data.evaluation_batch)
        trainer.limit_train_batches, trainer.limit_val_batches = steps, evaluations
        bare = Bare(task, data, steps=steps, evaluations=evaluations, epochs=options.epochs)
        warm = Bare(task, data, steps=WARM_UP, evaluations=1, epochs=1)
        for _ in range(WARM_UP):
            warm.step(*(part[: data.batch_size] for part in (warm.images, warm.labels)))
        alternate = Alternate(bare)
        trainer.callbacks.append(alternate)  # pyright: ignore[reportAttributeAccessIssue]
        with quiet():
            trainer.fit(task, datamodule=data)
    if not torch.allclose(torch.tensor(alternate.losses), torch.tensor(bare.losses), rtol=1e-5, atol=0.0):
        raise SystemExit(f"the two do not train the same: losses {alternate.losses} and {bare.losses}.")
    return {
        "command": "python benchmarks/overhead.py",
        "train": min(steps * data.batch_size, every[0]),
        "validation": min(evaluations * data.evaluation_batch, every[1]),
        "epochs": options.epochs,
        "threads": torch.get_num_threads(),
        "wall": compared(alternate.times, 0),
        "processor": compared(alternate.times, 1),
        "train_loss": {"system": alternate.losses, "bare": bare.losses},
        "validation_accuracy": {"system": alternate.accuracies, "bare": bare.accuracies},
        "cores_used": len(os.sched_getaffinity(0)),
        "machine": machine(),
    }


def compared(times: Mapping[str, Sequence[tuple[float, float]]], clock: int) -> dict:
    """Seconds of each epoch by one clock, the ratio of their medians, and the ratio of each pair of epochs."""
    system, bare = ([time[clock] for time in times[name]] for name in ("system", "bare"))
    return {
        "system": system,
        "bare": bare,
        "ratio": statistics.median(system) / statistics.median(bare),
        "ratios": [ours / plain for ours, plain in zip(system, bare, strict=True)],
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of MNIST's parquet files; downloaded when not given")
    parser.add_argument("--epochs", type=int, default=5, help="of each; default: %(default)s")
    parser.add_argument(
        "--train", type=int, help="images of an epoch, with as many fewer for the validation; default: all"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "overhead.json")
    options = parser.parse_args()
    result = measure(options)
    write_json(options.out, result)
    print(json.dumps({name: result[name] for name in ("wall", "processor", "train_loss")}, indent=1))
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
