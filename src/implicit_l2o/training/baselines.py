"""What a model is compared with: anything that answers a batch, measured by the task's own metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.training.data import AbstractData
from implicit_l2o.training.fit import fit
from implicit_l2o.training.memory import peak_memory
from implicit_l2o.training.task import AbstractTask


class AbstractBaseline(ABC):
    """Another way to an answer, named in the YAML under `baselines`.

    Subclasses are dataclasses whose fields the YAML sets. `prepare` fits it on training data, selects on validation data,
    and leaves the test data alone; `infer` then answers test batches.
    """

    @abstractmethod
    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Fit it.

        Args:
            task: the model it is compared with, trained; not to be changed.
            data: set up: `data.splits`.
            name: for the progress bar.
            progress: show one.
        """

    @abstractmethod
    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The answers to a batch; an honest baseline reads the inputs `batch[0]` alone, a bound may read more."""

    def numbers(self) -> Mapping[str, Any]:
        """What it cost: `parameters`, `seconds_per_epoch`, `epochs`, `peak_memory`, as far as it applies."""
        return {}


class Constant(AbstractBaseline):
    """The best answer that ignores the input (see `AbstractTask.constant`); it shows what a metric is worth."""

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Take it from the training targets."""
        self._x = task.constant(data.splits.train)

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The same for every sample."""
        return il2o.Inference(x=self._x.expand(len(batch[0]), *self._x.shape).clone())


@dataclass(eq=False)
class Untrained(AbstractBaseline):
    """A task as it is before any training.

    Args:
        task: made anew, under the run's seed.
    """

    task: AbstractTask

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Nothing to fit."""
        self.task.eval()

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """What its initial weights say."""
        return self.task.infer(batch[0])


@dataclass(eq=False)
class Trained(AbstractBaseline):
    """Another task, trained on the same data in the same way and measured by the first one's metrics.

    It sees the same batches as the model, and draws the same random numbers for dropout and augmentation, if it draws them
    in the same order: what differs is what the configuration says.

    Args:
        task: the model, its loss and its optimization.
        epochs: passes over the training data.
        weight_average: see `fit`.
        batch_size: None takes that of the data.
        accelerator: see `fit`; it answers on the CPU in any case.
    """

    task: AbstractTask
    epochs: int = 10
    weight_average: float = 0.0
    batch_size: int | None = None
    accelerator: str = "cpu"
    _numbers: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Train it, and keep its best epoch by its own monitor."""
        size = data.batch_size
        data.batch_size = size if self.batch_size is None else self.batch_size
        try:
            on_gpu = self.accelerator != "cpu" and torch.cuda.is_available()
            with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
                torch.manual_seed(data.run_seed)
                training = fit(
                    self.task,
                    data,
                    epochs=self.epochs,
                    weight_average=self.weight_average,
                    accelerator=self.accelerator,
                    progress=progress,
                    label=name,
                )
            memory = step_memory(self.task, data)
        finally:
            data.batch_size = size
        self._numbers = {
            "parameters": count_parameters(self.task),
            "seconds_per_epoch": training.seconds_per_epoch,
            "epochs": self.epochs,
            "best_epoch": training.best_epoch,
            "peak_memory": memory,
        }

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """What the trained task says."""
        return self.task.infer(batch[0])

    def numbers(self) -> Mapping[str, Any]:
        """Its size, time and memory."""
        return self._numbers


def count_parameters(task: AbstractTask) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)


def step_memory(task: AbstractTask, data: AbstractData) -> int:
    """Peak bytes of the tensors of one training step on a batch, forward and backward; the task stays as it was.

    Args:
        task: on any device.
        data: set up; a batch of its training split is taken.
    """
    import copy

    twin = copy.deepcopy(task).train()
    batch = [field[: data.batch_size].to(task.device) for field in data.splits.train.tensors]

    def step() -> None:
        twin.loss(twin.training_inference(batch[0]), batch).backward()

    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        step()  # once before, so that gradients exist and do not count
        return peak_memory(step, device=task.device)
