"""The digit classifier as it is served."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.certificates import calibrated_measures, fixed_certificates
from implicit_l2o.applications.digits.model import CLASSES, DIGITS, Architecture, ImplicitClassifier
from implicit_l2o.serving import AbstractServable


@final
class ServedDigits(AbstractServable):
    """Images `(B, 1, side, side)` with intensities in [0, 1] to digits `(B,)`; `x` are the logits.

    Args:
        architecture: the sizes.
        solver: None takes that of `ImplicitClassifier`.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.digits.served import ServedDigits
        >>> model = ServedDigits().eval()
        >>> model.answer(model.infer(torch.zeros(2, 1, 8, 8))).shape
        torch.Size([2])
    """

    def __init__(
        self, *, architecture: Architecture = DIGITS, solver: il2o.AbstractFixedPointSolver | None = None
    ) -> None:
        super().__init__()
        self.model = ImplicitClassifier(architecture, seed=0, solver=solver)
        size = architecture.channels * architecture.latent_side**2
        self.register_buffer("latent_whitening", torch.zeros(size, size))
        self.register_buffer("latent_means", torch.zeros(CLASSES, size))

    def infer(self, d: Float[Tensor, "B 1 side side"]) -> il2o.Inference:
        """The logits `x` and the equilibrium `z`."""
        return self.model(d)

    def answer(self, inference: il2o.Inference) -> Tensor:
        """The most likely class."""
        return inference.x.argmax(dim=1)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Those with fixed limits."""
        return fixed_certificates(self.model)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """Those that were calibrated."""
        return calibrated_measures(self.get_buffer("latent_whitening"), self.get_buffer("latent_means"))
