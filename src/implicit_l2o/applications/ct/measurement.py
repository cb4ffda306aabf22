"""How a sinogram comes about: the scanner on the image or on a finer one, and the noise."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.applications.ct.base import scanner
from implicit_l2o.physics import Geometry, PerBeamNoise, PoissonNoise, Projector, WhiteNoise

Noise: TypeAlias = PerBeamNoise | WhiteNoise | PoissonNoise

_FINER = 2  # times as many pixels along a side, where the data are not made by the model's own projector


@final
@dataclass(frozen=True)
class Measurement:
    """How data come about: `d = noise(A x)`.

    Args:
        size: pixels along one side of the image that is reconstructed.
        angles: views.
        noise: None measures without.
        avoid_inverse_crime: the images that are measured have twice as many pixels along a side, so that no model knows the
            operator exactly; the detector is the same.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.measurement import Measurement
        >>> Measurement(size=64)(torch.zeros(2, 1, 64, 64), torch.Generator()).shape
        torch.Size([2, 30, 93])
    """

    size: int = 64
    angles: int = 30
    noise: Noise | None = None
    avoid_inverse_crime: bool = False

    def __call__(
        self, images: Float[Tensor, "B 1 fine fine"], generator: torch.Generator
    ) -> Float[Tensor, "B angles bins"]:
        """The sinograms of the images; the noise is drawn from the generator."""
        clean = self.project(images)
        return clean if self.noise is None else self.noise(clean, generator)

    @property
    def fine_size(self) -> int:
        """Pixels along one side of the images that are measured."""
        return _FINER * self.size if self.avoid_inverse_crime else self.size

    @torch.no_grad()
    def project(self, images: Float[Tensor, "B 1 fine fine"]) -> Float[Tensor, "B angles bins"]:
        """The sinograms without noise, in the units of the projector of norm 1 that the models use."""
        coarse = scanner(self.size, self.angles)
        if not self.avoid_inverse_crime:
            return coarse.apply(images)
        fine = finer_scanner(self.size, self.angles)
        return fine.apply(images) * (fine.scale / coarse.scale)


@lru_cache(maxsize=2)
def finer_scanner(size: int, angles: int) -> Projector:
    """The same views and the same detector on a grid of twice as many pixels along a side."""
    coarse = scanner(size, angles).geometry
    pixel = coarse.pixel_size / _FINER
    return Projector(
        Geometry(_FINER * size, coarse.angles, coarse.bins, pixel_size=pixel, detector_spacing=coarse.spacing)
    )
