"""The training, the tests and the certificates of the digit classifier."""

import os
from collections.abc import Sequence
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.certificates import calibrated_measures, fixed_certificates
from implicit_l2o.applications.digits.classification import AbstractClassificationTask
from implicit_l2o.applications.digits.model import DIGITS, Architecture, ImplicitClassifier
from implicit_l2o.applications.digits.served import ServedDigits
from implicit_l2o.data.augmentation import RandomCrop
from implicit_l2o.training import About, Optimization


@final
class DigitsTask(AbstractClassificationTask):
    """Read handwritten digits by an implicit network whose latent equation has exactly one solution.

    The weights are drawn from the run's seed alone, so that every variant of a run begins with the same.

    Args:
        architecture: the sizes.
        shift: training images are moved by up to this many pixels in each direction, at random.
        backward: None takes `JFB()`.
        solver: None takes that of `ImplicitClassifier`.
        optimization: None takes that of `AbstractClassificationTask`.

    Raises:
        ValueError: `shift` is negative.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.digits.task import DigitsTask
        >>> task = DigitsTask().eval()
        >>> task.answer(task.infer(torch.zeros(2, 1, 8, 8))).shape
        torch.Size([2])
    """

    served_by = ServedDigits

    def __init__(
        self,
        *,
        architecture: Architecture = DIGITS,
        shift: int = 1,
        backward: il2o.AbstractBackward | None = None,
        solver: il2o.AbstractFixedPointSolver | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if shift < 0:
            raise ValueError(f"DigitsTask needs shift >= 0; got shift={shift}.")
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        network = ImplicitClassifier(architecture, seed=seed, solver=solver, backward=backward)
        size = architecture.channels * architecture.latent_side**2
        super().__init__(network, latent=size, optimization=optimization)
        self.shift = shift

    @property
    def network(self) -> ImplicitClassifier:
        """The model."""
        assert isinstance(self.model, ImplicitClassifier)
        return self.model

    def summary(self, z: Tensor) -> Tensor:
        """All of it, for it is small."""
        return z.flatten(1)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Move the training images; here and not in `training_inference`, so that callbacks see what the loss sees."""
        if not (self.training and self.shift):
            return batch
        return [random_shift(batch[0], self.shift), *batch[1:]]

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Is the equilibrium reached, and does its error matter? Proven, with fixed limits."""
        return fixed_certificates(self.network)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """Is the network sure, and did it see such images in the training? To be calibrated on other images than those."""
        return calibrated_measures(self.get_buffer("latent_whitening"), self.get_buffer("latent_means"))

    def about(self) -> About:
        """What the report says in words."""
        sizes = self.network.architecture
        gamma = sizes.contraction
        return About(
            title=f"Handwritten digits, {sizes.side}x{sizes.side} pixels",
            summary="An image is encoded, a latent variable solves a fixed-point equation, and a readout classifies it. "
            "The certificates say whether the equation was solved well enough for the label, and whether the training saw "
            "such images.",
            problem=rf"y = S(u^\star), \quad u^\star = R(u^\star; Q(d)), \quad R(u; v) = {gamma} \cdot "
            r"\frac{(u + v) + N(u + v)}{2}, \quad \|N(a) - N(b)\| \le \|a - b\|",
            guarantees=(
                f"R is a contraction with the factor {gamma} for all weights: every layer of N is divided by a proven "
                "bound of its norm.",
                "So every image has exactly one equilibrium u*, which does not depend on where the solver starts.",
                "Where the certificate 'solve error / label margin' passes, the label is that of the exact equilibrium.",
            ),
        )


def random_shift(images: Float[Tensor, "B 1 H W"], most: int) -> Float[Tensor, "B 1 H W"]:
    """Move each image by up to `most` pixels in both directions, filling with background; drawn from the global generator.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.digits.task import random_shift
        >>> image = torch.zeros(1, 1, 5, 5)
        >>> image[0, 0, 2, 2] = 1.0
        >>> moved = random_shift(image, 1)
        >>> float(moved.sum()), float(moved[0, 0, 1:4, 1:4].sum())
        (1.0, 1.0)
    """
    return RandomCrop(most)(images)
