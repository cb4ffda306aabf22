"""The training, the tests and the certificates of the image classifiers."""

import os
from collections.abc import Sequence
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.certificates import Doubt, ErrorOverMargin
from implicit_l2o.applications.digits.classification import AbstractClassificationTask
from implicit_l2o.applications.images.architecture import DIGITS, AbstractArchitecture
from implicit_l2o.applications.images.certificates import ChannelDistance
from implicit_l2o.applications.images.latent import AbstractContraction
from implicit_l2o.applications.images.layers import intensities
from implicit_l2o.applications.images.model import TOLERANCE, ImageClassifier
from implicit_l2o.data.augmentation import AbstractAugmentation
from implicit_l2o.data.images import CIFAR10_CLASSES
from implicit_l2o.training import About, Optimization

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
        optimization: None takes that of `AbstractClassificationTask`.

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
        super().__init__(network, latent=architecture.channels, optimization=optimization)
        self.augmentation = tuple(augmentation)
        self.label_smoothing = label_smoothing
        self._subject = subject

    @property
    def network(self) -> ImageClassifier:
        """The model."""
        assert isinstance(self.model, ImageClassifier)
        return self.model

    @property
    def subject(self) -> str:
        """What the images show, as a plural."""
        return self._subject

    @property
    def names(self) -> Sequence[str]:
        """Of the classes."""
        return _NAMES[self.subject]

    def pictures(self, images: Tensor) -> Tensor:
        """Images as intensities in [0, 1]."""
        return intensities(images)

    def summary(self, z: Tensor) -> Tensor:
        """The mean of each channel, see `ChannelDistance`."""
        return z.mean((2, 3))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment the training images; here and not in `training_inference`, so that callbacks see what the loss sees."""
        if not (self.training and self.augmentation):
            return batch
        images = intensities(batch[0])
        for change in self.augmentation:
            images = change(images)
        return [images, *batch[1:]]

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
