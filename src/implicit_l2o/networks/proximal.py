"""Proximal networks: maps that are the prox of some convex function, for all weights.

Moreau (1965, "Proximite et dualite dans un espace hilbertien", Corollary 10.c): a map is the prox of a closed convex
function if and only if it is nonexpansive and the gradient of a convex potential. With the potential
`psi = f / L`, `f` a convex network and `L` its curvature bound, both `grad psi` and `I - grad psi` qualify. One layer
gives `W^T s(W x + b)`, the proximal network of Hertrich, Neumayer, Steidl, "Convolutional Proximal Neural Networks and
Plug-and-Play Algorithms" (2021).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o import _batch
from implicit_l2o.networks.icnn import ICNN, ConvexCost
from implicit_l2o.operators.base import AbstractProximable, Scalar


@dataclass(frozen=True, eq=False)
class LearnedProx(AbstractProximable):
    """`prox(x) = grad f(x) / L`, or `x - grad f(x) / L` if `residual`. Made by `ProximalNet.condition`.

    The map is the same for every step, as in plug-and-play methods: at a step `s` the function it belongs to is
    `g / s`, with one fixed convex `g`. A learned model therefore keeps the step it was trained with.

    Args:
        potential: the convex `f`; `L` is its `curvature`.
        residual: whether the map is the identity minus the gradient.
    """

    potential: ConvexCost
    residual: bool = False

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """The learned map, whatever the step."""
        gradient = self.potential.apply(x) / _batch.expand(self.potential.curvature, x)
        return x - gradient if self.residual else gradient


class ProximalNet(nn.Module):
    """The prox of a learned convex function, conditioned on d: firmly nonexpansive with a symmetric Jacobian.

    Args:
        potential: the convex network; its curvature bound normalises the gradient, differentiably.
        residual: False for `grad f / L`, True for `x - grad f / L` (by Moreau's identity also a prox), which is near
            the identity where the potential is flat and suits denoising.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import ICNN, Huber, ProximalNet
        >>> net = ProximalNet(ICNN(4, context=2, widths=(16,), activation=Huber(0.1)), residual=True)
        >>> g = net.condition(torch.zeros(3, 2))
        >>> x, y = torch.randn(2, 3, 4)
        >>> move = g.prox(x, 1.0) - g.prox(y, 1.0)
        >>> bool(((move * (x - y)).sum(1) >= move.square().sum(1) - 1e-6).all())      # firmly nonexpansive
        True
    """

    def __init__(self, potential: ICNN, *, residual: bool = False) -> None:
        super().__init__()
        self.potential = potential
        self.residual = residual

    def condition(self, context: Float[Tensor, "B c"] | None = None) -> LearnedProx:
        """The prox for one batch of contexts.

        Raises:
            ValueError: a context is given to a network built without, or the reverse.
        """
        return LearnedProx(self.potential.condition(context), self.residual)
