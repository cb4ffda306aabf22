"""Filtered back-projection. Kak and Slaney, Principles of Computerized Tomographic Imaging (1988), section 3.3."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.physics._interpolation import interpolation_matrix
from implicit_l2o.physics._stored_matrix import StoredMatrix
from implicit_l2o.physics.projector import Projector

Filter = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


@final
@dataclass(frozen=True, eq=False)
class FilteredBackProjection:
    """The inverse of the projector for many angles and no noise: `x = sum_i w_i B_i (q * d_i)`.

    `q` is the ramp filter times a window that falls to the cutoff, `B_i` reads the filtered sinogram at every pixel by
    linear interpolation, and `w_i` is the share of half a turn that angle `i` stands for. The values are those of the image
    (attenuation), not clipped to any range.

    Args:
        projector: the one that made the data.
        filter: the window: `"ram-lak"` (none), `"shepp-logan"`, `"cosine"`, `"hamming"` or `"hann"`, from sharp to smooth.
        cutoff: frequency above which nothing passes, as a share of the detector's highest, in (0, 1].

    Raises:
        ValueError: an unknown filter; a cutoff outside (0, 1]; data of another shape.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import FilteredBackProjection, Geometry, Projector
        >>> projector = Projector(Geometry.uniform(64, angles=90))
        >>> disk = (torch.linspace(-1, 1, 64).square() + torch.linspace(-1, 1, 64)[:, None].square() < 0.5).float()
        >>> x = FilteredBackProjection(projector)(projector.apply(disk[None, None]))
        >>> round(x[0, 0, 28:36, 28:36].mean().item(), 2)
        1.0
    """

    projector: Projector
    filter: Filter = "hann"
    cutoff: float = 0.8

    def __post_init__(self) -> None:
        if self.filter not in get_args(Filter):
            raise ValueError(
                f"FilteredBackProjection has the filters {', '.join(get_args(Filter))}; got {self.filter!r}."
            )
        if not 0 < self.cutoff <= 1:
            raise ValueError(f"FilteredBackProjection needs 0 < cutoff <= 1; got cutoff={self.cutoff}.")

    def __call__(self, d: Float[Tensor, "B angles bins"]) -> Float[Tensor, "B 1 n n"]:
        """The reconstruction; linear in `d`, and differentiable."""
        self.projector.check_sinogram(d)
        response, weights = self._response.to(d), self._weights.to(d)
        bins, padded = d.shape[-1], 2 * (len(self._response) - 1)
        filtered = torch.fft.irfft(torch.fft.rfft(d, n=padded) * response, n=padded)[..., :bins]
        x = self._interpolation.adjoint(filtered * weights[:, None])
        return x.reshape(d.shape[0], *self.projector.in_shape)

    @cached_property
    def _response(self) -> Tensor:
        """The filter at the frequencies of a sinogram that is padded to twice its length, against wrap-around."""
        padded = max(64, 2 ** math.ceil(math.log2(2 * self.projector.out_shape[1])))
        # The ramp's own samples vanish at frequency 0 and shift the whole image; those of its band-limited kernel do not.
        n = np.fft.fftfreq(padded, 1 / padded).round()
        odd = n % 2 == 1
        kernel = np.where(n == 0, 0.25, 0.0)
        kernel[odd] = -1 / (np.pi * n[odd]) ** 2
        ramp = (
            np.fft.rfft(kernel).real / self.projector.geometry.spacing
        )  # kernel / spacing^2, times the step of the sum
        frequency = np.linspace(0, 1, padded // 2 + 1) / self.cutoff
        return torch.from_numpy(np.where(frequency <= 1, ramp * _window(self.filter, frequency), 0.0))

    @cached_property
    def _weights(self) -> Tensor:
        """Of each angle: its share of half a turn, times what makes line integrals of `d`."""
        return torch.from_numpy(_angular_weights(np.asarray(self.projector.geometry.angles)) * self.projector.scale)

    @cached_property
    def _interpolation(self) -> StoredMatrix:
        return StoredMatrix(interpolation_matrix(self.projector.geometry), self.projector.dtype)


def _window(name: Filter, frequency: np.ndarray) -> np.ndarray:
    """The window at frequencies as shares of the cutoff."""
    match name:
        case "ram-lak":
            return np.ones_like(frequency)
        case "shepp-logan":
            return np.sinc(frequency / 2)
        case "cosine":
            return np.cos(np.pi / 2 * frequency)
        case "hamming":
            return 0.54 + 0.46 * np.cos(np.pi * frequency)
        case "hann":
            return 0.5 + 0.5 * np.cos(np.pi * frequency)


def _angular_weights(angles: np.ndarray) -> np.ndarray:
    """Half the gaps to both neighbours modulo half a turn; equal directions share. A missing wedge stays unfilled."""
    turn = np.round(np.mod(angles, np.pi), 9)
    turn[turn >= np.round(np.pi, 9)] = 0.0
    directions, inverse, count = np.unique(turn, return_inverse=True, return_counts=True)
    gaps = np.diff(np.append(directions, directions[0] + np.pi))
    gaps = np.where(gaps > 2 * np.median(gaps), np.median(gaps), gaps)
    return ((gaps + np.roll(gaps, 1)) / 2 / count)[inverse]
