"""Certificates of a classified image: is the equilibrium reached, does its error matter, did training see such images?"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.model import CLASSES, TOLERANCE, ImplicitClassifier


@dataclass(frozen=True, eq=False)
class ErrorOverMargin(il2o.AbstractMeasure):
    """How much of the label's margin the solve's error could use up: below 1 the label is that of the exact equilibrium.

    `|u - u*| <= r / (1 - gamma)` (Banach) with the residual `r`, so a difference of two logits is off by at most
    `sqrt(2) L_S r / (1 - gamma)`; the value is that over the margin between the two highest logits. Proven, up to rounding.

    Args:
        gamma: proven contraction factor.
        readout_lipschitz: proven `L_S` of the readout.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.digits.certificates import ErrorOverMargin
        >>> inference = il2o.Inference(x=torch.tensor([[0.0, 2.0, 1.0]]), residual=torch.tensor([0.1]))
        >>> ErrorOverMargin(0.5, 3.0)(inference)  # sqrt(2) * 3 * 0.2 / 1
        tensor([0.8485])
    """

    gamma: float
    readout_lipschitz: float
    name: str = field(default="solve error / label margin", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The share, per sample; infinite for a tie."""
        first, second = inference.x.topk(2, dim=1).values.unbind(1)
        error = inference.need_residual(self.name) / (1 - self.gamma)
        return math.sqrt(2) * self.readout_lipschitz * error / (first - second)


@dataclass(frozen=True, eq=False)
class Doubt(il2o.AbstractMeasure):
    """`1 - max softmax`: the probability that the network itself gives to all other labels.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.digits.certificates import Doubt
        >>> Doubt()(il2o.Inference(x=torch.zeros(1, 4)))
        tensor([0.7500])
    """

    name: str = field(default="doubt", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`1 - max softmax`, per sample, as the sum of the other probabilities: `1 - p` would round to zero for most."""
        logits = inference.x
        others = logits.scatter(1, logits.argmax(dim=1, keepdim=True), -math.inf)
        return (others.logsumexp(dim=1) - logits.logsumexp(dim=1)).exp()


@dataclass(frozen=True, eq=False)
class LatentDistance(il2o.AbstractMeasure):
    """Mahalanobis distance of the equilibrium to the mean equilibrium of the predicted class.

    With the covariance `C` of the training equilibria around their class means, shared by the classes, the value is
    `|C^(-1/2) (u - mean of the class)|`. It tells images unlike all training images, about which the softmax may be sure.
    Source: K. Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples (NeurIPS 2018).

    Args:
        whitening: `W` with `W C W^T = I`, `(n, n)`.
        means: `W` times the class means, `(10, n)`.
    """

    whitening: Float[Tensor, "n n"]
    means: Float[Tensor, "classes n"]
    name: str = field(default="latent distance", kw_only=True)

    @classmethod
    def fit(
        cls, latents: Float[Tensor, "N *latent"], labels: Int[Tensor, " N"], *, shrinkage: float = 0.1
    ) -> "LatentDistance":
        """From training equilibria and their true labels.

        Args:
            latents: of training images.
            labels: their classes; each occurs.
            shrinkage: share of a multiple of the identity of equal trace in `C`, in (0, 1], as there may be fewer images
                than dimensions.

        Raises:
            ValueError: `shrinkage` outside (0, 1], or a class without images.

        Example:
            >>> import torch, implicit_l2o as il2o
            >>> from implicit_l2o.applications.digits.certificates import LatentDistance
            >>> labels = torch.arange(200) % 10
            >>> latents = 5.0 * labels[:, None] + torch.randn(200, 3)
            >>> distance = LatentDistance.fit(latents, labels)
            >>> near, far = torch.full((1, 3), 15.0), torch.full((1, 3), 17.5)
            >>> logits = torch.eye(10)[[3]]
            >>> bool(distance(il2o.Inference(x=logits, z=near)) < distance(il2o.Inference(x=logits, z=far)))
            True
        """
        if not 0 < shrinkage <= 1:
            raise ValueError(f"LatentDistance needs 0 < shrinkage <= 1; got shrinkage={shrinkage}.")
        counts = torch.bincount(labels, minlength=CLASSES)
        if bool((counts == 0).any()):
            raise ValueError(
                f"LatentDistance needs images of every class; none of {(counts == 0).nonzero()[:, 0].tolist()}."
            )
        u = latents.flatten(1).double()
        means = torch.zeros(CLASSES, u.shape[1], dtype=u.dtype, device=u.device).index_add_(0, labels, u)
        means = means / counts[:, None]
        centred = u - means[labels]
        covariance = centred.mT @ centred / len(u)
        identity = torch.eye(len(covariance), dtype=u.dtype, device=u.device)
        covariance = torch.lerp(covariance, covariance.diagonal().mean() * identity, shrinkage)
        whitening = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
        return cls(whitening.to(latents.dtype), (means @ whitening.mT).to(latents.dtype))

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The distance, per sample."""
        if inference.z is None:
            raise ValueError(f"'{self.name}' needs the latent equilibrium z.")
        u = inference.z.flatten(1) @ self.whitening.mT
        return torch.linalg.vector_norm(u - self.means[inference.x.argmax(dim=1)], dim=1)


def fixed_certificates(network: ImplicitClassifier) -> tuple[il2o.Certificate, ...]:
    """Is the equilibrium reached, and does its error matter? Proven, with fixed limits."""
    gamma = network.architecture.contraction
    return (
        il2o.Certificate(il2o.BanachBound(gamma), il2o.Threshold(TOLERANCE / (1 - gamma))),
        il2o.Certificate(ErrorOverMargin(gamma, network.readout_lipschitz()), il2o.Threshold(1.0)),
    )


def calibrated_measures(whitening: Tensor, means: Tensor) -> tuple[il2o.AbstractMeasure, ...]:
    """Is the network sure, and did it see such images in the training? To be calibrated on other images than those.

    On the training images both are too small, for the weights were fitted to them.

    Args:
        whitening: see `LatentDistance`.
        means: see `LatentDistance`.
    """
    return (Doubt(), LatentDistance(whitening, means))
