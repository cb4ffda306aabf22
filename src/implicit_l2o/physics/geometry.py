"""The parallel-beam geometry. Its defaults are ODL's (`parallel_beam_geometry`), as in the published experiments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self, final

import numpy as np


@final
@dataclass(frozen=True)
class Geometry:
    """Parallel rays through a square image: which lines a sinogram integrates over.

    Row `i` and column `j` of the image are the square of side `pixel_size` around

        x = (j - (size - 1) / 2) pixel_size,    y = ((size - 1) / 2 - i) pixel_size,

    so that rows go down, as in a picture. The ray of angle `theta` and bin `k` is the line

        (x - center[0]) cos(theta) + (y - center[1]) sin(theta) = (k - (bins - 1) / 2) detector_spacing.

    At angle 0 the rays run along the columns, at `pi / 2` along the rows, and the bins go the way of `x` and of `y`. This
    is ASTRA's convention; `implicit_l2o.interop.geometries` converts to and from those of ODL and deepinv. Lengths are in
    any one unit: with `pixel_size` in cm and attenuation in 1/cm line integrals have no unit.

    Args:
        size: pixels on a side of the image.
        angles: in radians, in any order; at least one.
        bins: of the detector. Default: the smallest odd number at which they are no wider than a pixel and span the
            diagonal with one bin to spare, `2 ceil(size / sqrt(2)) + 1` (183 at size 128).
        pixel_size: side of a pixel.
        detector_spacing: distance between the centres of two bins. Default: the bins span the diagonal.
        center: the point `(x, y)` about which the scanner turns, where it is not the middle of the image.

    Raises:
        ValueError: a size, number or length is not positive, an angle is not finite, or there is none.

    Example:
        >>> from implicit_l2o.physics import Geometry
        >>> geometry = Geometry.uniform(128, angles=30)
        >>> geometry.sinogram_shape, round(geometry.detector_spacing, 3), round(geometry.angles[0], 4)
        ((30, 183), 0.989, 0.0524)
    """

    size: int
    angles: Sequence[float] | np.ndarray
    bins: int | None = None
    pixel_size: float = field(default=1.0, kw_only=True)
    detector_spacing: float | None = field(default=None, kw_only=True)
    center: tuple[float, float] = field(default=(0.0, 0.0), kw_only=True)

    def __post_init__(self) -> None:
        angles = tuple(float(angle) for angle in np.atleast_1d(np.asarray(self.angles, dtype=np.float64)).ravel())
        if not angles:
            raise ValueError("Geometry needs at least one angle; got none.")
        if not all(map(math.isfinite, angles)):
            bad = next(angle for angle in angles if not math.isfinite(angle))
            raise ValueError(f"Geometry needs finite angles in radians; got {bad}.")
        _require_whole("size", self.size)
        if self.bins is not None:
            _require_whole("bins", self.bins)
        _require_length("pixel_size", self.pixel_size)
        bins = 2 * math.ceil(self.size / math.sqrt(2)) + 1 if self.bins is None else self.bins
        diagonal = math.sqrt(2) * self.size * self.pixel_size
        spacing = diagonal / bins if self.detector_spacing is None else self.detector_spacing
        _require_length("detector_spacing", spacing)
        if len(self.center) != 2 or not all(map(math.isfinite, self.center)):
            raise ValueError(f"Geometry needs a finite center (x, y); got center={self.center}.")
        for name, value in (("angles", angles), ("bins", int(bins)), ("detector_spacing", float(spacing))):
            object.__setattr__(self, name, value)

    @classmethod
    def uniform(
        cls,
        size: int,
        angles: int = 30,
        bins: int | None = None,
        *,
        pixel_size: float = 1.0,
        detector_spacing: float | None = None,
    ) -> Self:
        """`angles` directions over half a turn, in the half-cell convention `(i + 1/2) pi / angles`, i = 0, 1, ...

        Each is the middle of its cell of `[0, pi)`, as in ODL. deepinv and scikit-image take `i pi / angles`: other
        sinograms.
        """
        if isinstance(angles, bool) or not isinstance(angles, int) or angles < 1:
            raise ValueError(f"Geometry.uniform needs a whole number of angles >= 1; got angles={angles!r}.")
        middles = tuple((i + 0.5) * math.pi / angles for i in range(angles))
        return cls(size, middles, bins, pixel_size=pixel_size, detector_spacing=detector_spacing)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(1, size, size)`."""
        return (1, self.size, self.size)

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """`(angles, bins)`."""
        return (len(self.angles), self._bins)

    @property
    def spacing(self) -> float:
        """`detector_spacing`, resolved."""
        assert self.detector_spacing is not None
        return self.detector_spacing

    @property
    def _bins(self) -> int:
        assert self.bins is not None
        return self.bins


def _require_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"Geometry needs a whole number {name} >= 1; got {name}={value!r}.")


def _require_length(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"Geometry needs a finite {name} > 0; got {name}={value}.")
