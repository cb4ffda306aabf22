"""The smallest application: a projection onto the nonnegative orthant, of points that a linear map has to find.

The environment variable TINY ends a training on purpose, as `kill:7`: in the eighth training step of the process.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

import implicit_l2o as il2o
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Splits

DAMAGE = {
    "kill": lambda loss: os.kill(os.getpid(), signal.SIGKILL),
    "interrupt": lambda loss: os.kill(os.getpid(), signal.SIGINT),
    "nan": lambda loss: loss * float("nan"),
}


class Tiny(AbstractTask):
    """Nonnegative points."""

    def __init__(self, size: int = 3, dropout: float = 0.2, backward: il2o.AbstractBackward | None = None) -> None:
        if size < 1:
            raise ValueError(f"Tiny needs size >= 1; got {size}.")
        violation = il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3))
        super().__init__(
            il2o.ImplicitLayer(
                encoder=nn.Sequential(nn.Linear(size, size), nn.Dropout(dropout)),
                build=lambda y: il2o.ForwardBackward(
                    il2o.Problem(F=il2o.QuadraticCost(linear=-y, diagonal=1.0), g=il2o.NonnegativeOrthant())
                ),
                x0=torch.zeros_like,
                backward=backward,
                certificates=(violation,),
            )
        )
        self.steps = 0

    def loss(self, inference, batch):
        loss = (inference.x - batch[1]).square().mean()
        event, _, at = os.environ.get("TINY", "").partition(":")
        if torch.is_grad_enabled() and event:
            self.steps += 1
            if self.steps == int(at) + 1:
                return DAMAGE[event](loss) if event == "nan" else (DAMAGE[event](loss), loss)[1]
        return loss

    def metrics(self):
        return {"squared error": MeanSquaredError(), "absolute error": MeanAbsoluteError()}

    def measures(self):
        return (Size("size"),)


@dataclass(frozen=True, eq=False)
class Size(il2o.AbstractMeasure):
    """How large the answer is."""

    name: str

    def __call__(self, inference):
        return inference.x.norm(dim=1)


class Points(AbstractData):
    """Random ones, or those of a file."""

    def __init__(
        self, file: str | None = None, samples: int = 60, test: int = 20, batch_size: int = 20, **more
    ) -> None:
        super().__init__(batch_size=batch_size, **more)
        self.file = file
        self.sizes = (samples, 40, test)

    def load(self):
        d = torch.randn(sum(self.sizes), 3) if self.file is None else torch.from_numpy(np.load(self.file)["d"])
        return Splits(*(TensorDataset(part, part.roll(1, dims=1).clamp_min(0)) for part in d.split(self.sizes)))


class Signs(AbstractTask):
    """A classifier that solves nothing: no certificate, no error, whole numbers as targets."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 2))

    def infer(self, d):
        return il2o.Inference(x=self.model(d))

    def loss(self, inference, batch):
        return nn.functional.cross_entropy(inference.x, batch[1])

    def metrics(self):
        return {"accuracy": MulticlassAccuracy(num_classes=2, average="micro")}

    def answer(self, inference):
        return inference.x.argmax(1)

    def update(self, metrics, inference, batch):
        metrics.update(inference.x, batch[1])


class Labelled(Points):
    """The sign of the first number."""

    def load(self):
        parts = super().load()
        return Splits(
            *(
                TensorDataset(part.tensors[0], (part.tensors[0][:, 0] > 0).long())
                for part in (parts.train, parts.validation, parts.test)
            )
        )


class Interrupted(AbstractBaseline):
    """Ctrl-C while it is prepared, unless the file is there."""

    def __init__(self, unless: str) -> None:
        self.unless = unless

    def prepare(self, task, data, *, name, progress):
        if not Path(self.unless).exists():
            raise KeyboardInterrupt

    def infer(self, batch):
        return il2o.Inference(x=torch.zeros_like(batch[1]))


class Lines(Logger):
    """Writes the names of what is logged into a file."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    @property
    def name(self):
        return "lines"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        with open(self.file, "a") as file:
            file.write(" ".join(metrics) + "\n")
