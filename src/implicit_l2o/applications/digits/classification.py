"""What every image classifier shares as a task: it answers with the most likely class of its logits."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

import implicit_l2o as il2o
from implicit_l2o.applications.digits.metrics import CrossEntropy
from implicit_l2o.applications.digits.model import CLASSES
from implicit_l2o.training import AbstractTask, Bars, Scene


class AbstractClassificationTask(AbstractTask):
    """The inference's `x` are the logits `(B, 10)`; metrics, answers and errors follow from them."""

    def metrics(self) -> Mapping[str, Metric]:
        """Accuracy and cross-entropy."""
        return {
            # The check of the labels' range would cost as much as the metric, on every batch.
            "accuracy": MulticlassAccuracy(num_classes=CLASSES, average="micro", validate_args=False),
            "cross-entropy": CrossEntropy(),
        }

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """The metrics want the logits, not the answer."""
        metrics.update(inference.x, batch[1])

    def answer(self, inference: il2o.Inference) -> Tensor:
        """The most likely class."""
        return inference.x.argmax(dim=1)

    def scene(self) -> Scene:
        """The probabilities of the classes beside the image."""
        return Scene(
            picture=Bars(CLASSES, names=[str(label) for label in range(CLASSES)], low=0.0, high=1.0),
            values=lambda inference: inference.x.softmax(dim=1),
            values_name="class probabilities, softmax of x(d)",
            target=lambda batch: F.one_hot(batch[1], CLASSES).float(),
            parameters_name="image d",
        )

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"]:
        """Cross-entropy of each image."""
        return F.cross_entropy(inference.x, batch[1], reduction="none")
