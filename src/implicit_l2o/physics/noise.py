"""Noise of a sinogram. Every model takes the generator of its random numbers, for data that can be made again."""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from implicit_l2o import _batch


@final
@dataclass(frozen=True)
class PerBeamNoise:
    """Each beam has an error in proportion to itself: `d_i (1 + level n_i)` with `n_i` standard normal.

    The noise of the published experiments ("1.5 % Gaussian noise added to each individual beam").

    Args:
        level: standard deviation relative to the beam, >= 0.

    Raises:
        ValueError: the level is negative or not finite; the sinogram is not finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import PerBeamNoise
        >>> PerBeamNoise(0.015)(torch.ones(1, 2, 3), torch.Generator().manual_seed(0)).shape
        torch.Size([1, 2, 3])
    """

    level: float = 0.015

    def __post_init__(self) -> None:
        _require_level("PerBeamNoise", self.level)

    def __call__(
        self, sinogram: Float[Tensor, "B angles bins"], generator: Generator | None = None
    ) -> Float[Tensor, "B angles bins"]:
        """The noisy sinogram; without a generator by PyTorch's global one."""
        _require_finite("PerBeamNoise", sinogram)
        return sinogram * (1 + self.level * _normal(sinogram, generator))


@final
@dataclass(frozen=True)
class WhiteNoise:
    """The same standard deviation on every beam, with `|e| = level |d|` for each sinogram exactly.

    Args:
        level: norm of the noise relative to that of the sinogram, >= 0.

    Raises:
        ValueError: the level is negative or not finite; the sinogram is not finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import WhiteNoise
        >>> d = torch.ones(1, 2, 3)
        >>> round(((WhiteNoise(0.1)(d) - d).norm() / d.norm()).item(), 6)
        0.1
    """

    level: float = 0.015

    def __post_init__(self) -> None:
        _require_level("WhiteNoise", self.level)

    def __call__(
        self, sinogram: Float[Tensor, "B angles bins"], generator: Generator | None = None
    ) -> Float[Tensor, "B angles bins"]:
        """The noisy sinogram; without a generator by PyTorch's global one."""
        _require_finite("WhiteNoise", sinogram)
        e = _normal(sinogram, generator)
        size = self.level * _batch.norm(sinogram) / _batch.norm(e).clamp_min(torch.finfo(e.dtype).tiny)
        return sinogram + _batch.expand(size, e) * e


@final
@dataclass(frozen=True)
class PoissonNoise:
    """Photon counts: `N_i ~ Poisson(photons exp(-scale d_i))`, and back, `d_i = -log(N_i / photons) / scale`.

    A beam that no photon passes counts as 0.1 photons (Leuschner et al., LoDoPaB-CT, Scientific Data 8, 2021).

    Args:
        photons: that leave the source for each beam and are counted where nothing is in the way, > 0.
        scale: `scale * d` are the line integrals of the attenuation, without unit. For images of attenuation `mu / mu_max`
            and a projector of norm one it is `mu_max * projector.scale`, the geometry's lengths in the unit of `1 / mu_max`.

    Raises:
        ValueError: `photons` or `scale` is not positive and finite; the sinogram is not finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import PoissonNoise
        >>> d = PoissonNoise(1e6, scale=1.0)(torch.full((1, 100, 100), 0.5), torch.Generator().manual_seed(0))
        >>> round(d.mean().item(), 3)
        0.5
    """

    photons: float
    scale: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("photons", "scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"PoissonNoise needs a finite {name} > 0; got {name}={value}.")

    def __call__(
        self, sinogram: Float[Tensor, "B angles bins"], generator: Generator | None = None
    ) -> Float[Tensor, "B angles bins"]:
        """The noisy sinogram; without a generator by PyTorch's global one."""
        _require_finite("PoissonNoise", sinogram)
        passing = torch.exp(-self.scale * sinogram.detach().to(_device(sinogram, generator)))
        counts = torch.poisson(self.photons * passing, generator)
        return line_integrals(counts.to(sinogram), self.photons) / self.scale


def line_integrals(counts: Float[Tensor, "B angles bins"], photons: float) -> Float[Tensor, "B angles bins"]:
    """`-log(N / photons)`: measured photon counts as line integrals of the attenuation. A count of 0 is taken as 0.1.

    Args:
        counts: photons counted at each bin, >= 0.
        photons: counted where nothing is in the way, > 0.

    Raises:
        ValueError: a count is negative, NaN or infinite; `photons` is not positive and finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import line_integrals
        >>> line_integrals(torch.tensor([[[1000.0, 367.879]]]), 1000)
        tensor([[[-0.0000, 1.0000]]])
    """
    if not (math.isfinite(photons) and photons > 0):
        raise ValueError(f"line_integrals needs a finite photons > 0; got photons={photons}.")
    good = torch.isfinite(counts) & (counts >= 0)
    if not good.all():
        worst = counts[~good][0].item()
        raise ValueError(
            f"line_integrals needs photon counts that are finite and >= 0; got {worst} ({int((~good).sum())} bad)."
        )
    return -torch.log(torch.where(counts == 0, 0.1, counts) / photons)


def _normal(like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal numbers, drawn on the generator's device: a seed of the CPU means the same wherever the data are."""
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=_device(like, generator))
    return noise.to(like.device)


def _device(like: Tensor, generator: Generator | None) -> torch.device:
    return like.device if generator is None else generator.device


def _require_level(name: str, level: float) -> None:
    if not (math.isfinite(level) and level >= 0):
        raise ValueError(f"{name} needs a finite level >= 0; got level={level}.")


def _require_finite(name: str, sinogram: Tensor) -> None:
    if not torch.isfinite(sinogram).all():
        bad = sinogram[~torch.isfinite(sinogram)]
        raise ValueError(f"{name} needs a finite sinogram; got {bad[0].item()} ({bad.numel()} such values).")
