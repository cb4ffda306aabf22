"""A latent map that contracts as far as training batches show."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.applications.images.blocks import LeakyBlock
from implicit_l2o.applications.images.latent import (
    AbstractContraction,
    AbstractLatent,
    LatentMap,
    check_factor,
    equation,
    keeps,
)

_APPROACH = 5  # iterations to near an equilibrium, before the Jacobian there is estimated


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
        >>> from implicit_l2o.applications.images.estimated import Estimated
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
        parts = zip(pairs, self.norms.clamp_min(1.0).reciprocal(), keeps(len(pairs), self.options.gamma), strict=True)
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
        return equation(self.options.gamma), (
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
