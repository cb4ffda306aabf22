"""The one base of all trainings: an application adds its model, its loss and its metrics.

Longer than most files here: all that an application may say of itself, each with its default.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.serving import AbstractServable
from implicit_l2o.training.data import Indexed, Splits
from implicit_l2o.training.distributed import reach_all
from implicit_l2o.training.drawing import draw_vector
from implicit_l2o.training.optimization import Optimization
from implicit_l2o.training.records import About, Samples, Solve
from implicit_l2o.training.scene import Scene

_VALIDATION_SEED = 0  # the same noise in every epoch, so that epochs are compared by their weights alone


class AbstractTask(pl.LightningModule):
    """A model with its loss and its metrics; `il2o run` and Lightning's `Trainer` do the rest.

    A subclass says `loss` and `metrics`, and whatever of the other hooks it wants: how an answer is read from an
    inference (`answer`), which certificates it carries (`certificates`, `measures`), how far off an answer is (`error`).

    A batch is a sequence of tensors, `batch[0]` the inputs `d` and `batch[1]` the target.

    Args:
        model: an `ImplicitLayer`, or any module if the subclass overrides `infer`.
        optimization: AdamW and its schedule.

    Attributes:
        solve: status, residual and iterations of the last forward pass; None before the first.

    Example:
        >>> import torch, torchmetrics, implicit_l2o as il2o
        >>> from implicit_l2o.training import AbstractTask
        >>> class Nonnegative(AbstractTask):
        ...     def __init__(self) -> None:
        ...         super().__init__(il2o.ImplicitLayer(
        ...             encoder=torch.nn.Linear(2, 2),
        ...             build=lambda w: il2o.ForwardBackward(
        ...                 il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.NonnegativeOrthant())),
        ...             x0=torch.zeros_like,
        ...         ))
        ...     def loss(self, inference, batch):
        ...         return (inference.x - batch[1]).square().mean()
        ...     def metrics(self):
        ...         return {"squared error": torchmetrics.MeanSquaredError()}
        >>> task = Nonnegative()
        >>> task.infer(torch.zeros(3, 2)).x.shape
        torch.Size([3, 2])
    """

    monitor: str = "val/loss"  # what chooses the epoch; smaller is better
    served_by: type[AbstractServable] | None = None  # what answers as this task does without the training's packages

    def __init__(self, model: nn.Module, *, optimization: Optimization | None = None) -> None:
        super().__init__()
        self.model = model
        self.optimization = Optimization() if optimization is None else optimization
        self.solve: Solve | None = None
        self._calibrated: str | None = None
        self._inputs: dict[str, Any] | None = None
        self._scores = nn.ModuleDict()  # by stage, made when first needed: a subclass may still be building itself

    # What an application says.

    @abstractmethod
    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The scalar to minimise, a mean over the batch."""

    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Fresh torchmetrics objects by name; each says `higher_is_better`."""

    def about(self) -> About:
        """Title, problem and guarantees for the report; by default the class's name and the first line of its docstring."""
        return About(title=type(self).__name__, summary=(type(self).__doc__ or "").strip().split("\n")[0])

    def infer(self, d: Tensor) -> il2o.Inference:
        """The model's answers, with whatever is known of the solve; gradients follow the grad mode."""
        if not isinstance(self.model, il2o.ImplicitLayer):
            kind = type(self.model).__name__
            raise TypeError(f"{type(self).__name__}.infer must be written: its model is a {kind}, no ImplicitLayer.")
        return self.model.inference(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """What the loss sees, where it is not `infer`: perturbed or augmented data, a looser tolerance."""
        return self.infer(d)

    def validation_inference(self, d: Tensor) -> il2o.Inference:
        """What the metrics see on validation data, where `infer` takes long and they need less; by default `infer`."""
        return self.infer(d)

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Add a batch to the metrics; by default the answers against `batch[1]`."""
        metrics.update(self.answer(inference), batch[1])

    def answer(self, inference: il2o.Inference) -> Tensor:
        """What the user wants of an inference, `(B, *shape)`: by default `x`; or the class, or the rounded decision."""
        return inference.x

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"] | None:
        """How far off each answer is, to find the best, the median and the worst; None where there is no such number.

        By default the Euclidean distance to the target, where it has the answer's shape.
        """
        answer = self.answer(inference)
        if len(batch) < 2 or batch[1].shape != answer.shape or not answer.is_floating_point():
            return None
        return (answer - batch[1]).flatten(1).norm(dim=1)

    def constant(self, training: TensorDataset) -> Tensor:
        """The `x` of the predictor that ignores its input: the mean target, or the log-frequencies of the classes."""
        target = training.tensors[1]
        if target.is_floating_point():
            return target.mean(0)
        return torch.bincount(target.flatten()).clamp_min(1).double().log().float()

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Certificates with fixed limits; by default those of the layer."""
        return self.model.certificates if isinstance(self.model, il2o.ImplicitLayer) else ()

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """Properties whose limits are calibrated when the training ends. What they are fitted to is kept in buffers."""
        return ()

    def fit_measures(self, splits: Splits) -> None:
        """Fit what `measures` needs (a mean, a covariance) to the training data, into buffers, before the calibration."""

    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """Draw one sample for the report: `"inputs"`, `"answer"`, and `"target"` where there is one."""
        draw_vector(figure, sample)

    def scene(self) -> Scene:
        """What `il2o play` shows of a solve; by default the answers, laid out by their shape."""
        return Scene()

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """More numbers for `results.json`, plain values, from the examined test samples."""
        return {}

    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """More figures for the report by name, each with its caption."""
        return {}

    # What is done with it.

    @final
    def all_certificates(self) -> tuple[il2o.Certificate, ...]:
        """Those with fixed limits and, once the training ended, the calibrated ones."""
        if self._calibrated is None:
            return tuple(self.certificates())
        return (*self.certificates(), *il2o.certificates_from_json(self._calibrated, self.measures()))

    @final
    def set_calibration(self, certificates: Sequence[il2o.Certificate]) -> None:
        """Keep the rules; they are saved with the weights."""
        self._calibrated = il2o.certificates_to_json(certificates)

    @property
    def calibration(self) -> str | None:
        """The calibrated rules as JSON (see `certificates_from_json`); None before the first training ended."""
        return self._calibrated

    @final
    def set_inputs(self, d: Tensor) -> None:
        """Keep the shape and dtype of one input sample; they are saved with the weights, for new data."""
        self._inputs = {"shape": list(d.shape[1:]), "dtype": str(d.dtype).removeprefix("torch.")}

    @property
    def inputs(self) -> tuple[tuple[int, ...], torch.dtype] | None:
        """Shape and dtype of one input sample; None before the first training ended."""
        if self._inputs is None:
            return None
        return tuple(self._inputs["shape"]), getattr(torch, self._inputs["dtype"])

    @final
    @torch.no_grad()
    def examine(self, d: Tensor, batch: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        """Infer and certify: answers, values, labels and, where there was a solve, status, residual and iterations."""
        return self.describe(self.infer(d), batch)

    @final
    @torch.no_grad()
    def describe(self, inference: il2o.Inference, batch: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        """See `examine`."""
        report = il2o.certify(self.all_certificates(), inference)
        found: dict[str, Tensor | None] = {
            "answer": self.answer(inference),
            "values": report.values,
            "labels": report.labels,
            "worst": report.worst,
            "status": inference.status,
            "residual": inference.residual,
            "steps": inference.steps,
            "error": self.error(inference, batch) if batch else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    @final
    def fresh_metrics(self, stage: str = "") -> MetricCollection:
        """The metrics, their names led by the stage."""
        return MetricCollection(dict(self.metrics()), prefix=f"{stage}/" if stage else None)

    @final
    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss, logged; a loss that is not finite ends the training before anything is saved."""
        inference = self._observed(self.training_inference(batch[0]))
        loss = self.loss(inference, batch)
        if loss.device.type == "cpu" and not bool(torch.isfinite(loss)):
            self._refuse()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]), sync_dist=True)
        return reach_all(loss, self)

    @final
    def on_train_epoch_start(self) -> None:
        """The learning rate, logged."""
        optimizer = self.trainer.optimizers[0]
        self.log("lr", optimizer.param_groups[0]["lr"])

    @final
    def on_validation_start(self) -> None:
        """On an accelerator the loss is looked at once an epoch, for each look waits for the device."""
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not bool(torch.isfinite(loss)):
            self._refuse()

    @final
    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """The loss, under the same noise in every epoch, and the metrics."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(_VALIDATION_SEED + batch_idx)
            inference = self._observed(self.training_inference(batch[0]))
        # A float: of integers Lightning rounds the mean over the processes down, and the loss would be too large.
        size: Any = float(len(batch[0]))
        self.log("val/loss", self.loss(inference, batch), batch_size=size, sync_dist=True)
        own = type(self)
        if (own.training_inference, own.validation_inference) != (
            AbstractTask.training_inference,
            AbstractTask.validation_inference,
        ):
            inference = self.validation_inference(batch[0])
        self.update(self._collection("val"), inference, batch)

    @final
    def on_validation_epoch_end(self) -> None:
        """The metrics, over all batches and processes."""
        self._close("val")

    @final
    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The metrics, and everything known of the samples."""
        index, batch = batch if isinstance(batch, Indexed) else (None, batch)
        inference = self._observed(self.infer(batch[0]))
        self.update(self._collection("test"), inference, batch)
        found = self.describe(inference, batch)
        return found if index is None else {"index": index, **found}

    @final
    def on_test_epoch_end(self) -> None:
        """See `on_validation_epoch_end`."""
        self._close("test")

    @final
    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Answers and certificates; no target is needed."""
        index, batch = batch if isinstance(batch, Indexed) else (None, batch)
        found = self.examine(batch[0] if isinstance(batch, Sequence) else batch)
        return found if index is None else {"index": index, **found}

    @final
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; the learning rate follows its schedule step by step."""
        optimizer = self.optimization.optimizer(self)
        schedule = self.optimization.scheduler(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @final
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The calibrated limits and the inputs' shape are part of the model."""
        checkpoint["certificates"] = self._calibrated
        checkpoint["inputs"] = self._inputs

    @final
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self._calibrated = checkpoint.get("certificates")
        self._inputs = checkpoint.get("inputs")

    def _observed(self, inference: il2o.Inference) -> il2o.Inference:
        if inference.status is None or inference.residual is None:
            self.solve = None
        else:
            self.solve = Solve(inference.status, inference.residual.detach(), inference.steps)
        return inference

    def _collection(self, stage: str) -> MetricCollection:
        if stage not in self._scores:
            self._scores[stage] = self.fresh_metrics(stage).to(self.device)
        collection = self._scores[stage]
        assert isinstance(collection, MetricCollection)
        return collection

    def _close(self, stage: str) -> None:
        collection = self._collection(stage)
        self.log_dict(collection.compute())
        collection.reset()

    def _refuse(self) -> None:
        raise FloatingPointError(
            f"the training loss is not finite in epoch {self.current_epoch}, step {self.global_step}: lower "
            "optimization.learning_rate, or set trainer.gradient_clip_val. The last checkpoint is from before."
        )
