"""What every image classifier shares as a task: it answers with the most likely class of its logits."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

import implicit_l2o as il2o
from implicit_l2o.applications.digits.certificates import LatentDistance
from implicit_l2o.applications.digits.examined import Examined, examine_kinds, shares_by_kind
from implicit_l2o.applications.digits.figures import certificate_gallery, draw_digit, label_shares
from implicit_l2o.applications.digits.metrics import CrossEntropy
from implicit_l2o.applications.digits.model import CLASSES
from implicit_l2o.training import AbstractTask, Bars, Optimization, Samples, Scene, Splits

_REFERENCES = 10_000  # training images that the latent distance is fitted to, at most
_EVALUATION_BATCH = 500


class AbstractClassificationTask(AbstractTask):
    """The inference's `x` are the logits `(B, 10)` and `z` is the equilibrium; the rest follows from them.

    Args:
        model: image to inference.
        latent: entries of what `summary` makes of an equilibrium.
        optimization: None takes the small digits' AdamW, learning rate 1e-2 and weight decay 1e-3.
    """

    def __init__(self, model: nn.Module, *, latent: int, optimization: Optimization | None) -> None:
        super().__init__(model, optimization=optimization or Optimization(learning_rate=1e-2, weight_decay=1e-3))
        self.register_buffer("latent_whitening", torch.zeros(latent, latent))
        self.register_buffer("latent_means", torch.zeros(CLASSES, latent))

    @abstractmethod
    def summary(self, z: Float[Tensor, "B *latent"]) -> Float[Tensor, "B k"]:
        """What of an equilibrium is compared with those of training images."""

    @property
    def subject(self) -> str:
        """What the images show, as a plural."""
        return "digits"

    @property
    def names(self) -> Sequence[str]:
        """Of the classes."""
        return tuple("0123456789")

    def pictures(self, images: Tensor) -> Float[Tensor, "B C H W"]:
        """Images as intensities in [0, 1]."""
        return images

    def infer(self, d: Tensor) -> il2o.Inference:
        """The logits `x` and the equilibrium `z`."""
        return self.model(d)

    @torch.no_grad()
    def fit_measures(self, splits: Splits) -> None:
        """Fit the latent distance to the equilibria of training images."""
        images, labels = splits.train[:_REFERENCES]
        parts = [self.infer(part.to(self.device)).z for part in images.split(_EVALUATION_BATCH)]
        latents = torch.cat([self.summary(part) for part in parts if part is not None])
        fitted = LatentDistance.fit(latents, labels.to(latents.device))
        self.get_buffer("latent_whitening").copy_(fitted.whitening)
        self.get_buffer("latent_means").copy_(fitted.means)

    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The image with its predicted and its true label."""
        target = sample.get("target")
        image = self.pictures(sample["inputs"][None])[0]
        names = self.names
        draw_digit(figure, image, names[int(sample["answer"])], None if target is None else names[int(target)])

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """See `shares_by_kind`."""
        return shares_by_kind(self.examine_kinds(samples))

    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Images under their certificates, and how many of each kind of image pass."""
        examined = self.examine_kinds(samples)
        return {
            "Images and certificates": (
                certificate_gallery(examined, noun=self.subject, classes=self.names),
                "Predicted labels; the frame is the worst certificate of the image, below it the certificates that do not "
                f"pass. Typical {self.subject} are those of median doubt in their class. The training saw none of the lower "
                "kinds.",
            ),
            "What the certificates catch": (
                label_shares(examined, noun=self.subject),
                "Which share of each kind of image passes, warns and fails: the softmax's own confidence beside all "
                "certificates together.",
            ),
        }

    def examine_kinds(self, samples: Samples) -> dict[str, Examined]:
        """The test images, and images made of them that are unlike all training images, under the certificates."""
        images, labels = samples.batch[:2]
        return examine_kinds(self, samples, self.pictures(images), labels)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(inference.x, batch[1])

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
