"""Activations with the properties that the proofs need: 1-Lipschitz maps, and smooth convex functions."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GroupSort(nn.Module):
    """Sorts neighbouring pairs of channels: 1-Lipschitz, and its Jacobian is a permutation, so no gradient is lost.

    `(x_1, x_2) -> (max(x_1, x_2), min(x_1, x_2))` along dimension 1 (Anil, Lucas, Grosse, ICML 2019, "MaxMin").

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import GroupSort
        >>> GroupSort()(torch.tensor([[1.0, 3.0, 2.0, 0.0]]))
        tensor([[3., 1., 2., 0.]])
    """

    def forward(self, x: Float[Tensor, "B channels *shape"]) -> Float[Tensor, "B channels *shape"]:
        """Sort the pairs `(x[:, 0], x[:, 1]), (x[:, 2], x[:, 3]), ...`."""
        if x.shape[1] % 2:
            raise ValueError(f"GroupSort sorts pairs of channels: it needs an even number; got {x.shape[1]}.")
        first, second = x.unflatten(1, (-1, 2)).unbind(2)
        return torch.stack([torch.maximum(first, second), torch.minimum(first, second)], dim=2).flatten(1, 2)


NONEXPANSIVE: tuple[type[nn.Module], ...] = (GroupSort, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Softplus, nn.Identity)


def check_nonexpansive(activation: nn.Module) -> None:
    """Raise a `ValueError` unless the activation is known to be 1-Lipschitz (GELU and SiLU, for instance, are not)."""
    if not isinstance(activation, NONEXPANSIVE):
        permitted = ", ".join(kind.__name__ for kind in NONEXPANSIVE)
        raise ValueError(f"activation must be 1-Lipschitz, one of {permitted}; got {type(activation).__name__}.")
    if isinstance(activation, nn.LeakyReLU) and abs(activation.negative_slope) > 1:
        raise ValueError(f"a LeakyReLU is 1-Lipschitz for |negative_slope| <= 1; got {activation.negative_slope}.")


class AbstractConvexActivation(ABC):
    """A smooth convex function `phi` of one variable with `|phi'| <= 1` and bounded curvature."""

    @property
    @abstractmethod
    def curvature(self) -> float:
        """The supremum of `phi''`."""

    @property
    @abstractmethod
    def increasing(self) -> bool:
        """Whether `phi' >= 0`, so that `phi` may act on convex functions (in a layer beyond the first)."""

    @abstractmethod
    def value(self, t: Tensor) -> Tensor:
        """`phi(t)`, elementwise."""

    @abstractmethod
    def slope(self, t: Tensor) -> Tensor:
        """`phi'(t)`, elementwise."""


@dataclass(frozen=True)
class Softplus(AbstractConvexActivation):
    """`phi(t) = log(1 + exp(sharpness t)) / sharpness`: a smooth ReLU, infinitely differentiable.

    Args:
        sharpness: positive; `phi'' <= sharpness / 4`, and ReLU is the limit.

    Example:
        >>> from implicit_l2o.networks import Softplus
        >>> Softplus(sharpness=2.0).curvature
        0.5
    """

    sharpness: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("Softplus.sharpness", self.sharpness)

    @property
    def curvature(self) -> float:
        """`sharpness / 4`, at the origin."""
        return self.sharpness / 4

    @property
    def increasing(self) -> bool:
        """True."""
        return True

    def value(self, t: Tensor) -> Tensor:
        """`log(1 + exp(sharpness t)) / sharpness`."""
        # logaddexp, not F.softplus: the latter switches to the identity at a threshold, where its curvature jumps.
        return torch.logaddexp(self.sharpness * t, t.new_zeros(())) / self.sharpness

    def slope(self, t: Tensor) -> Tensor:
        """The logistic function of `sharpness t`."""
        return torch.sigmoid(self.sharpness * t)


@dataclass(frozen=True)
class Squareplus(AbstractConvexActivation):
    """`phi(t) = (t + sqrt(t^2 + width^2)) / 2`: a smooth ReLU with algebraic tails, and no exponential.

    Args:
        width: positive; `phi'' <= 1 / (2 width)`, and ReLU is the limit at zero.

    Example:
        >>> from implicit_l2o.networks import Squareplus
        >>> Squareplus(width=0.5).curvature
        1.0
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("Squareplus.width", self.width)

    @property
    def curvature(self) -> float:
        """`1 / (2 width)`, at the origin."""
        return 1 / (2 * self.width)

    @property
    def increasing(self) -> bool:
        """True."""
        return True

    def value(self, t: Tensor) -> Tensor:
        """`(t + sqrt(t^2 + width^2)) / 2`."""
        return (t + (t.square() + self.width**2).sqrt()) / 2

    def slope(self, t: Tensor) -> Tensor:
        """`(1 + t / sqrt(t^2 + width^2)) / 2`."""
        return (1 + t * (t.square() + self.width**2).rsqrt()) / 2


@dataclass(frozen=True)
class Huber(AbstractConvexActivation):
    """`phi(t) = t^2 / (2 width)` for `|t| <= width`, else `|t| - width / 2`: a smooth absolute value.

    Even, so it may stand in the first layer of a convex network only.

    Args:
        width: positive; `phi'' <= 1 / width`, and `|t|` is the limit at zero.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import Huber
        >>> Huber(width=1.0).value(torch.tensor([0.5, -2.0]))
        tensor([0.1250, 1.5000])
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("Huber.width", self.width)

    @property
    def curvature(self) -> float:
        """`1 / width`, on the parabola."""
        return 1 / self.width

    @property
    def increasing(self) -> bool:
        """False: it falls for negative arguments."""
        return False

    def value(self, t: Tensor) -> Tensor:
        """The Huber function."""
        return F.huber_loss(t, torch.zeros_like(t), reduction="none", delta=self.width) / self.width

    def slope(self, t: Tensor) -> Tensor:
        """`t / width` clipped to `[-1, 1]`."""
        return (t / self.width).clamp(-1, 1)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {value}.")
