"""The latent map `R` of an image classifier, its contraction proven or estimated, after Wu Fung et al., JFB (AAAI 2022).

    R(u; v) = gamma A_k(... A_1(u + v)),    A_i(x) = (x + N_i(x)) / 2

with `v = Q(d)` the encoded image and `N_i` two 3x3 convolutions. While `|N_i(x) - N_i(y)| <= |x - y|`, every `A_i` is
nonexpansive and `R` a contraction in `u` with the factor `gamma`. The paper's augmented network has `gamma` on `u` and not
on the output: with `w = gamma u` in place of `u` that is this one, its readout's first weights divided by `gamma`. Its batch
normalisation inside `R` would couple the samples of a solve, and is left out.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit_l2o.applications.images.blocks import SLOPE, AbstractBlock, LeakyBlock, max_min_block
from implicit_l2o.networks import GroupSort, NonexpansiveConvNet, NonexpansiveMap

_APPROACH = 5  # iterations to near an equilibrium, before the Jacobian there is estimated


@runtime_checkable
class RestrictableMap(Protocol):
    """`T` of a batch, which a solver can narrow to the samples that are not done."""

    def __call__(self, z: Tensor, /) -> Tensor:
        """`T(z)`, per sample."""
        ...

    def restrict(self, index: Tensor) -> "RestrictableMap":
        """The map of the samples `index` alone."""
        ...


class AbstractLatent(nn.Module, ABC):
    """The weights of a latent map; `condition` makes the map of a batch, which a solver then calls many times."""

    @abstractmethod
    def condition(self, injection: Float[Tensor, "B channels side side"]) -> RestrictableMap:
        """`T(.; v)` for the injection `v`, its weights normalised once."""

    @abstractmethod
    def regulate(self, injection: Float[Tensor, "B channels side side"]) -> None:
        """What a training batch may teach the map about its own contraction; evaluation never calls it."""

    @abstractmethod
    def proven_factor(self) -> float | None:
        """A proven `gamma < 1` with `|T(u) - T(w)| <= gamma |u - w|` at the present weights; None where none is proven."""

    @property
    @abstractmethod
    def factor(self) -> float:
        """The contraction factor that the map is built for: proven, or wanted."""

    @abstractmethod
    def words(self) -> tuple[str, tuple[str, ...]]:
        """The latent equation in LaTeX, and what is guaranteed of it, in sentences."""


class AbstractContraction(ABC):
    """How the solution of the latent equation is made unique: the choice that stands in an experiment's file."""

    @abstractmethod
    def build(self, channels: int, side: int, blocks: int) -> AbstractLatent:
        """The latent map for images `(channels, side, side)`; `blocks` residual blocks, where it has such."""


@dataclass(frozen=True, eq=False)
class LatentMap:
    """`R(u; v) = gamma A_k(... A_1(u + v))`; the last block has `gamma` in its weights.

    Args:
        blocks: the `A_i`, shared by the batch.
        injection: `v`, `(B, channels, side, side)`.
    """

    blocks: tuple[AbstractBlock, ...]
    injection: Float[Tensor, "B channels side side"]

    def __call__(self, u: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B channels side side"]:
        """`R(u; v)`, per sample."""
        x = u + self.injection
        for block in self.blocks:
            x = block(x)
        return x

    def restrict(self, index: Int[Tensor, " k"]) -> "LatentMap":
        """The map of the samples `index` alone: lets the solver drop finished samples."""
        return replace(self, injection=self.injection[index])


@final
@dataclass(frozen=True)
class Proven(AbstractContraction):
    """`R` contracts by `gamma` for all weights.

    Each convolution is divided by a proven bound of its norm where that exceeds 1. Between the two
    convolutions of a block stands `GroupSort`, or the leaky rectifier where the number of channels is odd.

    Args:
        gamma: the factor, in (0, 1).

    Raises:
        ValueError: `gamma` outside (0, 1).

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.images.latent import Proven
        >>> latent = Proven(0.9).build(channels=4, side=5, blocks=1)
        >>> T = latent.condition(torch.randn(2, 4, 5, 5))
        >>> u, w = torch.randn(2, 2, 4, 5, 5)
        >>> bool(((T(u) - T(w)).flatten(1).norm(dim=1) <= 0.9 * (u - w).flatten(1).norm(dim=1)).all())
        True
    """

    gamma: float = 0.9

    def __post_init__(self) -> None:
        check_factor("Proven", self.gamma)

    def build(self, channels: int, side: int, blocks: int) -> AbstractLatent:
        """See `AbstractContraction`."""
        return ProvenLatent(channels, side, blocks, self.gamma)


@final
@dataclass(frozen=True)
class Estimated(AbstractContraction):
    """`R` contracts by `gamma` as far as training batches show: weights are scaled by an estimate of each block's Jacobian.

    In every training step the norm of `dN_i/dx` is estimated near the equilibria of a few images of the batch, by rounds of
    power iteration that go on from step to step; where it exceeds 1, the block's convolutions are scaled down. So the norm
    is bounded along the trained data, not everywhere, and allows larger weights than a proof. Evaluation uses the
    scale that the training left. (The paper scales by one random direction, also on test images.)

    Args:
        gamma: the factor that is wanted, in (0, 1).
        probes: images of a batch that are looked at, at least 1.
        rounds: of power iteration a step, at least 1.
        decay: of an estimate in a step that does not confirm it, in (0, 1].

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.images.latent import Estimated
        >>> latent = Estimated(0.9).build(channels=4, side=5, blocks=1)
        >>> latent.regulate(torch.randn(8, 4, 5, 5))
        >>> latent.proven_factor() is None
        True
    """

    gamma: float = 0.9
    probes: int = 16
    rounds: int = 2
    decay: float = 0.99

    def __post_init__(self) -> None:
        check_factor("Estimated", self.gamma)
        if min(self.probes, self.rounds) < 1:
            raise ValueError(f"Estimated needs probes, rounds >= 1; got probes={self.probes}, rounds={self.rounds}.")
        if not 0 < self.decay <= 1:
            raise ValueError(f"Estimated needs 0 < decay <= 1; got decay={self.decay}.")

    def build(self, channels: int, side: int, blocks: int) -> AbstractLatent:
        """See `AbstractContraction`."""
        return EstimatedLatent(channels, side, blocks, self)


@final
class ProvenLatent(AbstractLatent):
    """See `Proven`."""

    def __init__(self, channels: int, side: int, blocks: int, gamma: float) -> None:
        super().__init__()
        activation = GroupSort() if channels % 2 == 0 else nn.LeakyReLU(SLOPE)
        self.nets = nn.ModuleList(
            NonexpansiveConvNet((channels, channels, channels), shape=(side, side), activation=activation)
            for _ in range(blocks)
        )
        self.gamma = gamma

    def condition(self, injection: Float[Tensor, "B channels side side"]) -> LatentMap:
        """See `AbstractLatent`."""
        nets = [net for net in self.nets if isinstance(net, NonexpansiveConvNet)]
        keeps = _keeps(len(nets), self.gamma)
        return LatentMap(
            tuple(_folded(net.condition(), keep) for net, keep in zip(nets, keeps, strict=True)), injection
        )

    def regulate(self, injection: Float[Tensor, "B channels side side"]) -> None:
        """Nothing: the bound holds for all weights."""

    def proven_factor(self) -> float:
        """`gamma`."""
        return self.gamma

    @property
    def factor(self) -> float:
        """`gamma`."""
        return self.gamma

    def words(self) -> tuple[str, tuple[str, ...]]:
        """See `AbstractLatent`."""
        return _equation(self.gamma) + r", \quad \|N(a) - N(b)\| \le \|a - b\|", (
            f"R is a contraction with the factor {self.gamma} for all weights: every layer of N is divided by a proven "
            "bound of its norm.",
            "So every image has exactly one equilibrium u*, which does not depend on where the solver starts.",
            "Where the certificate 'solve error / label margin' passes, the label is that of the exact equilibrium.",
        )


@final
class EstimatedLatent(AbstractLatent):
    """See `Estimated`."""

    norms: Tensor
    directions: Tensor

    def __init__(self, channels: int, side: int, blocks: int, options: Estimated) -> None:
        super().__init__()
        self.options = options
        self.pairs = nn.ModuleList(_Convolutions(channels) for _ in range(blocks))
        # Replaced in training and never overwritten, so that a map made before is still differentiated as it was.
        self.register_buffer("norms", torch.ones(blocks))  # of dN_i/dx before the scaling
        self.register_buffer("directions", torch.randn(blocks, channels, side, side))

    def condition(self, injection: Float[Tensor, "B channels side side"]) -> LatentMap:
        """See `AbstractLatent`."""
        pairs = [pair for pair in self.pairs if isinstance(pair, _Convolutions)]
        parts = zip(pairs, self.norms.clamp_min(1.0).reciprocal(), _keeps(len(pairs), self.options.gamma), strict=True)
        return LatentMap(tuple(pair.block(scale, keep) for pair, scale, keep in parts), injection)

    @torch.no_grad()
    def regulate(self, injection: Float[Tensor, "B channels side side"]) -> None:
        """Estimate the blocks' Jacobians near the equilibria of a few images, and keep what follows for the scales."""
        latent_map = self.condition(injection[: self.options.probes].detach())
        u = torch.zeros_like(latent_map.injection)
        for _ in range(_APPROACH):
            u = latent_map(u)
        x = u + latent_map.injection
        norms, directions = [], []
        for block, direction, old in zip(latent_map.blocks, self.directions, self.norms, strict=True):
            assert isinstance(block, LeakyBlock)
            norm, found = block.jacobian_norm(x, direction[None], self.options.rounds)
            norms.append(torch.maximum(norm * old.clamp_min(1.0), self.options.decay * old))
            directions.append(found[0])
            x = block(x)
        self.norms, self.directions = torch.stack(norms), torch.stack(directions)

    def proven_factor(self) -> None:
        """None: the factor is an estimate."""

    @property
    def factor(self) -> float:
        """`gamma`, as far as the estimates go."""
        return self.options.gamma

    def words(self) -> tuple[str, tuple[str, ...]]:
        """See `AbstractLatent`."""
        return _equation(self.options.gamma), (
            f"R was kept a contraction with the factor {self.options.gamma} near the equilibria of training images, by "
            "estimates of its Jacobian: that is no proof, and the distance to the equilibrium is an estimate.",
        )


class _Convolutions(nn.Module):
    """The weights of a block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def block(self, scale: Tensor, keep: float) -> LeakyBlock:
        """`keep (x + scale N(x))`, the scale spread over both convolutions: the rectifier is homogeneous."""
        assert self.first.bias is not None
        assert self.second.bias is not None
        root = scale.sqrt()
        return LeakyBlock(
            (root * self.first.weight, keep * root * self.second.weight),
            (root * self.first.bias, keep * scale * self.second.bias),
            keep,
            outer=True,
        )


def check_factor(name: str, gamma: float) -> None:
    """Raise a `ValueError` unless `0 < gamma < 1`."""
    if not 0 < gamma < 1:
        raise ValueError(f"{name} needs 0 < gamma < 1; got gamma={gamma}.")


def _keeps(blocks: int, gamma: float) -> list[float]:
    """What each block keeps of its input: a half, and in the last one a half of `gamma`."""
    return [0.5] * (blocks - 1) + [0.5 * gamma]


def _folded(net: NonexpansiveMap, keep: float) -> AbstractBlock:
    """`keep (x + N(x))`."""
    first, second = net.weights
    before, after = net.shift.flatten().split([len(first), len(second)])
    if isinstance(net.activation, GroupSort):
        return max_min_block(first, before, second, after, keep)
    return LeakyBlock((first, keep * second), (before, keep * after), keep, outer=False)


def _equation(gamma: float) -> str:
    return rf"u^\star = R(u^\star; Q(d)), \quad R(u; v) = {gamma} \cdot \frac{{(u + v) + N(u + v)}}{{2}}"
