"""The training, the tests and the certificates of the image classifiers."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.certificates import Doubt, ErrorOverMargin
from implicit_l2o.applications.digits.classification import AbstractClassificationTask
from implicit_l2o.applications.digits.examined import examine_kinds, shares_by_kind
from implicit_l2o.applications.digits.figures import certificate_gallery, draw_digit, label_shares
from implicit_l2o.applications.images.architecture import DIGITS, AbstractArchitecture
from implicit_l2o.applications.images.certificates import ChannelDistance
from implicit_l2o.applications.images.latent import AbstractContraction
from implicit_l2o.applications.images.layers import intensities
from implicit_l2o.applications.images.model import TOLERANCE, ImageClassifier
from implicit_l2o.applications.images.readout import CLASSES
from implicit_l2o.data.augmentation import AbstractAugmentation
from implicit_l2o.data.images import CIFAR10_CLASSES
from implicit_l2o.training import About, Optimization, Samples, Splits

_REFERENCES = 10_000  # training images that the latent distance is fitted to, at most
_EVALUATION_BATCH = 500
_NAMES = {"digits": tuple("0123456789"), "photographs": CIFAR10_CLASSES}


@final
class ImageTask(AbstractClassificationTask):
    """Classify images by an implicit network whose latent equation has one solution, proven or as far as can be estimated.

    The weights are drawn from the run's seed alone, so that every variant of a run begins with the same. Augmentation and
    label smoothing touch training batches alone: validation and test see the images as they are.

    Args:
        architecture: the sizes, the encoder and the readout; None takes `DIGITS`.
        contraction: what makes the solution unique; None takes `Proven()`.
        augmentation: changes of the training images, in this order, on intensities in [0, 1].
        label_smoothing: share of the target that is spread over all classes in training, in [0, 1).
        subject: what the images show: `"digits"` or `"photographs"`.
        backward: None takes `JFB()`.
        solver: None takes that of `ImageClassifier`.
        optimization: None takes the small digits' AdamW, learning rate 1e-2 and weight decay 1e-3.

    Raises:
        ValueError: `label_smoothing` outside [0, 1), or another subject.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.images import ImageTask
        >>> task = ImageTask().eval()
        >>> task.answer(task.infer(torch.zeros(2, 1, 8, 8))).shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        architecture: AbstractArchitecture | None = None,
        contraction: AbstractContraction | None = None,
        augmentation: Sequence[AbstractAugmentation] = (),
        label_smoothing: float = 0.0,
        subject: str = "digits",
        backward: il2o.AbstractBackward | None = None,
        solver: il2o.AbstractFixedPointSolver | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"ImageTask needs 0 <= label_smoothing < 1; got label_smoothing={label_smoothing}.")
        if subject not in _NAMES:
            raise ValueError(f"ImageTask knows the subjects {', '.join(_NAMES)}; got subject={subject!r}.")
        architecture = DIGITS if architecture is None else architecture
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        network = ImageClassifier(architecture, contraction=contraction, seed=seed, solver=solver, backward=backward)
        super().__init__(network, optimization=optimization or Optimization(learning_rate=1e-2, weight_decay=1e-3))
        self.augmentation = tuple(augmentation)
        self.label_smoothing = label_smoothing
        self.subject = subject
        channels = architecture.channels
        self.register_buffer("latent_whitening", torch.zeros(channels, channels))
        self.register_buffer("latent_means", torch.zeros(CLASSES, channels))

    @property
    def network(self) -> ImageClassifier:
        """The model."""
        assert isinstance(self.model, ImageClassifier)
        return self.model

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment the training images; here and not in `training_inference`, so that callbacks see what the loss sees."""
        if not (self.training and self.augmentation):
            return batch
        images = intensities(batch[0])
        for change in self.augmentation:
            images = change(images)
        return [images, *batch[1:]]

    def infer(self, d: Tensor) -> il2o.Inference:
        """The logits `x` and the equilibrium `z`."""
        return self.network(d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """Cross-entropy; smoothed in training, as dropout is: epochs are compared by the plain one."""
        return F.cross_entropy(inference.x, batch[1], label_smoothing=self.label_smoothing if self.training else 0.0)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Is the equilibrium reached, and does its error matter? The second only where the contraction is proven."""
        gamma = self.network.R.proven_factor()
        if gamma is None:
            estimate = self.network.R.factor
            return (il2o.Certificate(il2o.BanachEstimate(estimate), il2o.Threshold(TOLERANCE / (1 - estimate))),)
        return (
            il2o.Certificate(il2o.BanachBound(gamma), il2o.Threshold(TOLERANCE / (1 - gamma))),
            il2o.Certificate(ErrorOverMargin(gamma, self.network.S.lipschitz()), il2o.Threshold(1.0)),
        )

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """Is the network sure, and did it see such images in the training? To be calibrated on other images than those."""
        return (Doubt(), ChannelDistance(self.get_buffer("latent_whitening"), self.get_buffer("latent_means")))

    @torch.no_grad()
    def fit_measures(self, splits: Splits) -> None:
        """Fit the latent distance to the equilibria of training images."""
        images, labels = splits.train[:_REFERENCES]
        parts = [self.infer(part.to(self.device)).z for part in images.split(_EVALUATION_BATCH)]
        latents = torch.cat([part.mean((2, 3), keepdim=True) for part in parts if part is not None])
        fitted = ChannelDistance.fit(latents, labels.to(latents.device))
        self.get_buffer("latent_whitening").copy_(fitted.whitening)
        self.get_buffer("latent_means").copy_(fitted.means)

    def about(self) -> About:
        """What the report says in words."""
        side, latent = self.network.architecture.side, self.network.R
        equation, guarantees = latent.words()
        return About(
            title=f"{self.subject.capitalize()}, {side}x{side} pixels",
            summary="An image is encoded, a latent variable solves an equation, and a readout classifies it. The "
            "certificates say whether the equation was solved well enough, and whether the training saw such images.",
            problem=rf"y = S(u^\star), \quad {equation}",
            guarantees=guarantees,
        )

    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The image with its predicted and its true label."""
        names, target = _NAMES[self.subject], sample.get("target")
        image = intensities(sample["inputs"][None])[0]
        draw_digit(figure, image, names[int(sample["answer"])], None if target is None else names[int(target)])

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """See `shares_by_kind`."""
        return shares_by_kind(self._kinds(samples))

    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Images under their certificates, and how many of each kind of image pass."""
        examined = self._kinds(samples)
        return {
            "Images and certificates": (
                certificate_gallery(examined, noun=self.subject, classes=_NAMES[self.subject]),
                "Predicted labels; the frame is the worst certificate of the image, below it the certificates that do not "
                "pass. Typical images are those of median doubt in their class. The training saw none of the lower kinds.",
            ),
            "What the certificates catch": (
                label_shares(examined, noun=self.subject),
                "Which share of each kind of image passes, warns and fails: the softmax's own confidence beside all "
                "certificates together.",
            ),
        }

    def _kinds(self, samples: Samples) -> Mapping[str, Any]:
        images, labels = samples.batch[:2]
        return examine_kinds(self, samples, intensities(images), labels)
