"""A latent map that is a contraction for all weights."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.applications.images.blocks import SLOPE, AbstractBlock, LeakyBlock, max_min_block
from implicit_l2o.applications.images.latent import (
    AbstractContraction,
    AbstractLatent,
    LatentMap,
    check_factor,
    equation,
    keeps,
)
from implicit_l2o.networks import GroupSort, NonexpansiveConvNet, NonexpansiveMap


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
        >>> from implicit_l2o.applications.images.proven import Proven
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
        shares = keeps(len(nets), self.gamma)
        return LatentMap(
            tuple(_folded(net.condition(), keep) for net, keep in zip(nets, shares, strict=True)), injection
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
        return equation(self.gamma) + r", \quad \|N(a) - N(b)\| \le \|a - b\|", (
            f"R is a contraction with the factor {self.gamma} for all weights: every layer of N is divided by a proven "
            "bound of its norm.",
            "So every image has exactly one equilibrium u*, which does not depend on where the solver starts.",
            "Where the certificate 'solve error / label margin' passes, the label is that of the exact equilibrium.",
        )


def _folded(net: NonexpansiveMap, keep: float) -> AbstractBlock:
    """`keep (x + N(x))`."""
    first, second = net.weights
    before, after = net.shift.flatten().split([len(first), len(second)])
    if isinstance(net.activation, GroupSort):
        return max_min_block(first, before, second, after, keep)
    return LeakyBlock((first, keep * second), (before, keep * after), keep, outer=False)
