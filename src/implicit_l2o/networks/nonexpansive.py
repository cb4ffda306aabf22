"""Networks with a proven Lipschitz constant: nonexpansive, averaged, contractive, and the monotone maps made of them.

Every layer is divided by an upper bound of its norm (`spectral`), where that exceeds 1, and the activations are
1-Lipschitz, so the constants hold for all weights, not only for trained ones. The `nn.Module`s hold the weights;
`condition(context)` normalises them once and returns a frozen operator, which a solver then calls many times.

Longer than most files here: a module and the frozen operator that it makes are read together.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o._batch import DATA, Batched
from implicit_l2o.networks.activations import GroupSort, check_nonexpansive
from implicit_l2o.networks.spectral import conv2d_norm_bound, dense_norm_bound
from implicit_l2o.operators.base import AbstractMonotone, AbstractProximable, Scalar


@dataclass(frozen=True, eq=False)
class NonexpansiveMap(Batched):
    """`N(x) = W_L s(... s(W_1 x + c_1) ...) + c_L` with `|W_i| <= 1` and `s` 1-Lipschitz: `|N(x) - N(y)| <= |x - y|`.

    Made by `NonexpansiveNet.condition` or `NonexpansiveConvNet.condition`.

    Args:
        weights: matrices `(m_i, m_{i-1})`, or kernels `(m_i, m_{i-1}, k, k)` of convolutions, of norm at most 1.
        shift: the `c_i` of all layers, joined along dimension 1: `(1 or B, sum m_i)`, images `(1 or B, sum m_i, H, W)`.
        activation: the 1-Lipschitz `s`.
        max_image: largest image `(H, W)` for which the kernels' norm is at most 1; None for matrices.
    """

    weights: tuple[Tensor, ...]
    shift: Tensor = field(metadata=DATA)
    activation: nn.Module
    max_image: tuple[int, int] | None = None

    def __call__(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`N(x)`, per sample."""
        if self.max_image is not None and any(s > m for s, m in zip(x.shape[2:], self.max_image, strict=True)):
            raise ValueError(
                f"the network is proven nonexpansive for images up to {self.max_image}; got {tuple(x.shape)}."
            )
        shifts = self.shift.split([weight.shape[0] for weight in self.weights], dim=1)
        for index, (weight, shift) in enumerate(zip(self.weights, shifts, strict=True)):
            if index > 0:
                x = self.activation(x)
            x = (F.linear(x, weight) if weight.ndim == 2 else F.conv2d(x, weight, padding="same")) + shift
        return x


@dataclass(frozen=True, eq=False)
class AveragedMap(AbstractProximable):
    """`x -> (1 - a) x + a N(x)` with `N` nonexpansive and `0 < a < 1`.

    If it has a fixed point, iterating it converges to one (Krasnoselskii 1955, Mann 1953). For `a <= 1/2` it is firmly
    nonexpansive, that is the resolvent of a maximal monotone operator, and may stand in a problem as `g` or `h`.
    """

    inner: NonexpansiveMap
    averagedness: float

    def __call__(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`(1 - a) x + a N(x)`, per sample."""
        return torch.lerp(x, self.inner(x), self.averagedness)

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """The map itself: the resolvent of `step A` for an `A` that is defined through it, at the step in use.

        Raises:
            ValueError: `averagedness > 1/2`, where the map is not a resolvent.
        """
        if self.averagedness > 0.5:
            raise ValueError(f"prox needs 0 < averagedness <= 0.5 (a resolvent); got {self.averagedness}.")
        return self(x)


@dataclass(frozen=True, eq=False)
class ContractiveMap(Batched):
    """`T(u) = gamma N(u)` with `N` nonexpansive: a contraction, `|T(u) - T(w)| <= gamma |u - w|`, `0 < gamma < 1`.

    It has one fixed point and `|u - u*| <= |T(u) - u| / (1 - gamma)` (Banach, 1922).
    """

    inner: NonexpansiveMap
    contraction: float

    def __call__(self, u: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`gamma N(u)`, per sample."""
        return self.contraction * self.inner(u)


@dataclass(frozen=True, eq=False)
class ResidualMonotone(AbstractMonotone):
    """`F(x) = scale (x - c N(x))` with `N` nonexpansive, `0 <= c <= 1`: monotone, `1 / (scale (1 + c))`-cocoercive.

    Not a gradient in general: it models games as well as costs. For `c = 1` its zeros are the fixed points of `N`; for
    `c < 1` it is also `scale (1 - c)`-strongly monotone, so that a variational inequality has one solution.

    Proof: `I - N` is 1/2-cocoercive (Bauschke and Combettes, "Convex Analysis and Monotone Operator Theory in Hilbert
    Spaces", 2nd ed., proposition 4.11) and `F / scale = (1 - c) I + c (I - N)`; the inverses of the constants of a sum
    add up (proposition 4.12): `(1 - c) + 2 c = 1 + c`.
    """

    inner: NonexpansiveMap
    scale: float | Tensor = 1.0
    contraction: float = 1.0

    @property
    def lipschitz(self) -> Scalar:
        """`scale (1 + c)`; detached."""
        scale = self.scale.detach() if isinstance(self.scale, Tensor) else self.scale
        return (1 + self.contraction) * scale

    @property
    def cocoercivity(self) -> Scalar:
        """`1 / (scale (1 + c))`: Davis-Yin takes steps up to twice that."""
        return 1 / self.lipschitz

    @property
    def strong_monotonicity(self) -> Scalar:
        """`scale (1 - c)`."""
        scale = self.scale.detach() if isinstance(self.scale, Tensor) else self.scale
        return (1 - self.contraction) * scale

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`scale (x - c N(x))`, per sample."""
        return self.scale * (x - self.contraction * self.inner(x))


class AbstractNonexpansiveNet(nn.Module, ABC):
    """Weights and input injection of a nonexpansive network; what the layers are (dense, convolutions) is abstract."""

    weights: nn.ParameterList

    @abstractmethod
    def condition(self, context: Tensor | None = None) -> NonexpansiveMap:
        """The network for one batch of contexts, its weights normalised.

        Args:
            context: what is injected into every layer, or None for a network built without.

        Raises:
            ValueError: a context is given to a network built without, or the reverse.
        """

    @final
    def forward(self, x: Float[Tensor, "B *shape"], context: Tensor | None = None) -> Float[Tensor, "B *shape"]:
        """`N(x; context)`; inside a solver call `condition` once instead."""
        return self.condition(context)(x)


class NonexpansiveNet(AbstractNonexpansiveNet):
    """Dense `N(x; d) = W_L s(... s(W_1 x + b_1 + V_1 d) ...) + b_L + V_L d`, nonexpansive in `x`, free in `d`.

    Args:
        widths: `(n, hidden, ..., n_out)`, at least one layer.
        context: length of the vector `d` that is injected into every layer; 0 for none.
        activation: a 1-Lipschitz `nn.Module`, `GroupSort()` by default.

    Raises:
        ValueError: fewer than two widths, an odd hidden width with `GroupSort`, or an activation that is not known to
            be 1-Lipschitz.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import NonexpansiveNet
        >>> _ = torch.manual_seed(0)
        >>> net = NonexpansiveNet((4, 16, 4), context=3)
        >>> N = net.condition(torch.randn(8, 3))
        >>> x, y = torch.randn(2, 8, 4)
        >>> bool(((N(x) - N(y)).norm(dim=1) <= (x - y).norm(dim=1)).all())
        True
    """

    def __init__(self, widths: Sequence[int], *, context: int = 0, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.activation = _checked_activation(widths, activation)
        self.weights = nn.ParameterList(nn.init.orthogonal_(torch.empty(m, n)) for n, m in itertools.pairwise(widths))
        self.bias = nn.Parameter(torch.zeros(sum(widths[1:])))
        self.injection = nn.Linear(context, sum(widths[1:]), bias=False) if context else None

    def condition(self, context: Float[Tensor, "B c"] | None = None) -> NonexpansiveMap:
        """`N(.; context)` with normalised weights."""
        shift = _shift(self.bias[None], self.injection, context)
        weights = tuple(weight / dense_norm_bound(weight).clamp_min(1) for weight in self.weights)
        return NonexpansiveMap(weights, shift, self.activation)


class NonexpansiveConvNet(AbstractNonexpansiveNet):
    """The same network with zero-padded convolutions, on images `(B, channels, H, W)`.

    Args:
        channels: `(c, hidden, ..., c_out)`, at least one layer.
        shape: largest image `(H, W)` it will see; the layers' norms are bounded for it and for all smaller ones.
        kernel_size: odd.
        context: channels of the image `d` that is injected into every layer; 0 for none.
        activation: a 1-Lipschitz `nn.Module`, `GroupSort()` by default.

    Raises:
        ValueError: as `NonexpansiveNet`; an even kernel size.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import NonexpansiveConvNet
        >>> net = NonexpansiveConvNet((1, 8, 1), shape=(28, 28))
        >>> net(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        shape: tuple[int, int],
        kernel_size: int = 3,
        context: int = 0,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that images keep their size; got {kernel_size}.")
        self.activation = _checked_activation(channels, activation)
        self.shape = shape
        self.weights = nn.ParameterList(_orthogonal_kernel(m, n, kernel_size) for n, m in itertools.pairwise(channels))
        self.bias = nn.Parameter(torch.zeros(sum(channels[1:])))
        self.injection = nn.Conv2d(context, sum(channels[1:]), 1, bias=False) if context else None

    def condition(self, context: Float[Tensor, "B c H W"] | None = None) -> NonexpansiveMap:
        """`N(.; context)` with normalised kernels."""
        shift = _shift(self.bias[None, :, None, None], self.injection, context)
        weights = tuple(kernel / conv2d_norm_bound(kernel, self.shape).clamp_min(1) for kernel in self.weights)
        return NonexpansiveMap(weights, shift, self.activation, self.shape)


class AveragedNet(nn.Module):
    """`x -> (1 - a) x + a N(x; d)`.

    Args:
        inner: the nonexpansive network, with as many outputs as inputs.
        averagedness: `a`, in (0, 1).

    Raises:
        ValueError: `averagedness` outside (0, 1), or input and output widths that differ.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import AveragedNet, NonexpansiveNet
        >>> net = AveragedNet(NonexpansiveNet((4, 16, 4)), averagedness=0.5)
        >>> net.condition().prox(torch.zeros(2, 4), step=1.0).shape
        torch.Size([2, 4])
    """

    def __init__(self, inner: AbstractNonexpansiveNet, *, averagedness: float = 0.5) -> None:
        super().__init__()
        if not 0 < averagedness < 1:
            raise ValueError(f"AveragedNet needs 0 < averagedness < 1; got {averagedness}.")
        _check_square(inner, "AveragedNet")
        self.inner = inner
        self.averagedness = averagedness

    def condition(self, context: Tensor | None = None) -> AveragedMap:
        """The averaged map for one batch of contexts."""
        return AveragedMap(self.inner.condition(context), self.averagedness)

    def forward(self, x: Float[Tensor, "B *shape"], context: Tensor | None = None) -> Float[Tensor, "B *shape"]:
        """`(1 - a) x + a N(x; context)`."""
        return self.condition(context)(x)


class ContractiveNet(nn.Module):
    """`T(u; v) = gamma N(u; v)` with `|dT/du| <= gamma < 1` for all weights: a latent equilibrium network.

    Args:
        inner: the nonexpansive network, with as many outputs as inputs; its context is the input injection `v`.
        contraction: `gamma`, in (0, 1).

    Raises:
        ValueError: `contraction` outside (0, 1), or input and output widths that differ.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.networks import ContractiveNet, NonexpansiveNet
        >>> net = ContractiveNet(NonexpansiveNet((8, 32, 8), context=5), contraction=0.8)
        >>> T = net.condition(torch.ones(3, 5))
        >>> T(torch.zeros(3, 8)).shape, T.contraction
        (torch.Size([3, 8]), 0.8)
    """

    def __init__(self, inner: AbstractNonexpansiveNet, *, contraction: float = 0.9) -> None:
        super().__init__()
        if not 0 < contraction < 1:
            raise ValueError(f"ContractiveNet needs 0 < contraction < 1; got {contraction}.")
        _check_square(inner, "ContractiveNet")
        self.inner = inner
        self.contraction = contraction

    def condition(self, context: Tensor | None = None) -> ContractiveMap:
        """`T(.; context)`, ready for `fixed_point`."""
        return ContractiveMap(self.inner.condition(context), self.contraction)

    def forward(self, u: Float[Tensor, "B *shape"], context: Tensor | None = None) -> Float[Tensor, "B *shape"]:
        """`T(u; context)`."""
        return self.condition(context)(u)


def _check_square(inner: AbstractNonexpansiveNet, name: str) -> None:
    inputs, outputs = inner.weights[0].shape[1], inner.weights[-1].shape[0]
    if inputs != outputs:
        raise ValueError(f"{name} needs as many outputs as inputs; got {inputs} inputs and {outputs} outputs.")


def _checked_activation(widths: Sequence[int], activation: nn.Module | None) -> nn.Module:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"a network needs at least an input and an output width, all positive; got {tuple(widths)}.")
    activation = GroupSort() if activation is None else activation
    check_nonexpansive(activation)
    if isinstance(activation, GroupSort) and any(width % 2 for width in widths[1:-1]):
        raise ValueError(f"GroupSort needs even hidden widths; got {tuple(widths)}.")
    return activation


def _orthogonal_kernel(out_channels: int, in_channels: int, size: int) -> Tensor:
    """An orthogonal matrix in the centre of the kernel, so that the layer starts as an isometry of pixels."""
    kernel = torch.randn(out_channels, in_channels, size, size) * 0.1 / (size * in_channels**0.5)
    kernel[:, :, size // 2, size // 2] += nn.init.orthogonal_(torch.empty(out_channels, in_channels))
    return kernel


def _shift(bias: Tensor, injection: nn.Module | None, context: Tensor | None) -> Tensor:
    if (injection is None) != (context is None):
        raise ValueError(
            "the network was built without context=; condition() takes none."
            if injection is None
            else "the network was built with context=; condition(context) needs it."
        )
    return bias if injection is None else bias + injection(context)
