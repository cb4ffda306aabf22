"""When the training ends: back to the best weights, limits for the certificates, and the model file for inference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.training.checkpoint import read_checkpoint
from implicit_l2o.training.data import AbstractData
from implicit_l2o.training.prediction import gather_samples
from implicit_l2o.training.task import AbstractTask


@dataclass(frozen=True)
class Calibration:
    """How the limits of a task's `measures` are taken from data; see `il2o.calibrate`.

    Args:
        p_pass: the share of the calibration values that pass.
        p_warn: the share that warns.
        p_fail: the share that fails.
        resolution: values that differ by no more than this are ties.
        split: whose inferences are the calibration values. Validation data are the honest choice where the weights were
            fitted to the training data closely; there must be enough of them to resolve the shares.
    """

    p_pass: float = 0.95
    p_warn: float = 0.0
    p_fail: float = 0.05
    resolution: float = 0.0
    split: Literal["train", "validation"] = "validation"


@dataclass(frozen=True, eq=False)
class _Column(il2o.AbstractMeasure):
    """A value that was measured before."""

    name: str
    index: int

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        return inference.x[:, self.index]


@torch.no_grad()
def calibrate_task(task: AbstractTask, data: AbstractData, rule: Calibration) -> None:
    """Fit the task's measures, then set their limits; over all processes, each sample once.

    Args:
        task: with the weights that will be used; it gets the limits.
        data: set up.
        rule: the shares and the split.
    """
    task.eval()
    task.fit_measures(data.splits)
    measures = task.measures()
    if not measures:
        return
    parts = []
    for index, batch in data.samples(rule.split):
        inference = task.infer(batch[0].to(task.device))
        values = torch.stack([measure(inference).double() for measure in measures], dim=1)
        status = (
            torch.full((len(values),), int(il2o.Status.CONVERGED)) if inference.status is None else inference.status
        )
        parts.append({"index": index, "values": values.cpu(), "status": status.cpu()})
    found = gather_samples({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    certificates = il2o.calibrate(
        [_Column(measure.name, i) for i, measure in enumerate(measures)],
        il2o.Inference(x=found["values"], status=found["status"]),
        p_pass=rule.p_pass,
        p_warn=rule.p_warn,
        p_fail=rule.p_fail,
        resolution=rule.resolution,
    )
    task.set_calibration(certificates)


class Calibrate(pl.Callback):
    """Ends a training: loads the best checkpoint, calibrates, and writes `model.ckpt`, which is the model for inference.

    Args:
        best: the checkpoint of the best validation; where it is absent (no validation) the last weights are kept.
        out: the file to write.
        rule: the shares and the split.
    """

    def __init__(self, best: Path, out: Path, rule: Calibration | None = None) -> None:
        self._best = best
        self._out = out
        self._rule = Calibration() if rule is None else rule

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See the class."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not (isinstance(pl_module, AbstractTask) and isinstance(data, AbstractData)):
            return
        if self._best.exists():
            pl_module.load_state_dict(read_checkpoint(self._best)["state_dict"])
        pl_module.set_inputs(data.splits.train.tensors[0])
        calibrate_task(pl_module, data, self._rule)
        trainer.save_checkpoint(self._out, weights_only=True)
