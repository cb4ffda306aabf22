"""A baseline that is trained for a given time, so that methods with cheap and with costly steps get the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.training.baselines import AbstractBaseline, count_parameters
from implicit_l2o.training.callbacks import TimeLimit
from implicit_l2o.training.data import AbstractData
from implicit_l2o.training.fit import fit
from implicit_l2o.training.task import AbstractTask


@final
@dataclass(eq=False)
class TimedTraining(AbstractBaseline):
    """Another task, trained on the same data for at most so many seconds of training steps.

    The learning rate should not depend on the number of steps: `schedule: constant`, with `anneal` where it shall fall.

    Args:
        task: the model, its loss and its optimization.
        seconds: of training steps, without validation.
        anneal: let the learning rate fall to zero along a half cosine of the time.
        processor: count the processor's time, see `TimeLimit`.
        epochs: the most passes over the training data.
        weight_average: see `fit`.
        gradient_clip: see `fit`.
        batch_size: None takes that of the data.
    """

    task: AbstractTask
    seconds: float
    anneal: bool = False
    processor: bool = False
    epochs: int = 60
    weight_average: float = 0.0
    gradient_clip: float | None = None
    batch_size: int | None = None
    _numbers: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Train it, and keep its best epoch by its own monitor."""
        limit, size = TimeLimit(self.seconds, anneal=self.anneal, processor=self.processor), data.batch_size
        data.batch_size = size if self.batch_size is None else self.batch_size
        steps_an_epoch = -(-len(data.splits.train) // data.batch_size)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(data.run_seed)
                training = fit(
                    self.task,
                    data,
                    epochs=self.epochs,
                    weight_average=self.weight_average,
                    gradient_clip=self.gradient_clip,
                    callbacks=[limit],
                    progress=progress,
                    label=name,
                )
        finally:
            data.batch_size = size
        epochs = limit.steps / steps_an_epoch
        self._numbers = {
            "parameters": count_parameters(self.task),
            "epochs": epochs,
            "seconds": self.seconds - limit.left,
            "seconds_per_epoch": sum(training.seconds) / epochs,
            "best_epoch": training.best_epoch,
        }

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """What the trained task says."""
        return self.task.infer(batch[0])

    def numbers(self) -> Mapping[str, Any]:
        """Its size and time."""
        return self._numbers
