"""Attenuation, Hounsfield units, grey windows, and scalings that can be undone.

Buzug, Computed Tomography (2008), section 1.5: HU = 1000 (mu - mu_water) / mu_water.
"""

import math
from dataclasses import dataclass
from typing import Self, final

from jaxtyping import Float
from torch import Tensor

WATER = 0.2
"""Attenuation of water in 1/cm at about 70 keV, as LoDoPaB-CT takes it (20 per metre)."""


def to_hounsfield(mu: Float[Tensor, "*shape"], water: float = WATER) -> Float[Tensor, "*shape"]:
    """`1000 (mu - water) / water`: water is 0, air about -1000.

    Args:
        mu: attenuation, in 1/cm or another unit of `water`.
        water: attenuation of water in that unit, > 0.

    Raises:
        ValueError: `water` is not positive and finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import to_hounsfield
        >>> to_hounsfield(torch.tensor([0.0, 0.2, 0.4]))
        tensor([-1000.,     0.,  1000.])
    """
    _require_positive("water", water)
    return 1000 * (mu - water) / water


def from_hounsfield(hu: Float[Tensor, "*shape"], water: float = WATER) -> Float[Tensor, "*shape"]:
    """`water (1 + HU / 1000)`, the attenuation in the unit of `water`. Values below -1000 give negative attenuation: clip.

    Args:
        hu: in Hounsfield units.
        water: attenuation of water, > 0.

    Raises:
        ValueError: `water` is not positive and finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import from_hounsfield
        >>> from_hounsfield(torch.tensor([-1000.0, 0.0]))
        tensor([0.0000, 0.2000])
    """
    _require_positive("water", water)
    return water * (1 + hu / 1000)


@final
@dataclass(frozen=True)
class GreyWindow:
    """What is shown from black to white: `[level - width / 2, level + width / 2]` to `[0, 1]`, clipped.

    Args:
        level: value of the middle grey.
        width: from black to white, > 0.

    Raises:
        ValueError: the width is not positive, or one of them not finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import GreyWindow
        >>> GreyWindow(40, 400)(torch.tensor([-1000.0, 40.0, 140.0, 900.0]))  # soft tissue, in HU
        tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """

    level: float
    width: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.level):
            raise ValueError(f"GreyWindow needs a finite level; got level={self.level}.")
        _require_positive("width", self.width)

    def __call__(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The grey values."""
        return ((x - self.level) / self.width + 0.5).clamp(0, 1)


@final
@dataclass(frozen=True)
class UnitRange:
    """The scaling of `[low, high]` to `[0, 1]`, kept so that results can be given back in their unit. It never clips.

    Args:
        low: value that becomes 0. With `low = 0` line integrals scale along: those of the scaled image are `1 / high` of the
            image's.
        high: value that becomes 1, > low.

    Raises:
        ValueError: the range is empty or not finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import UnitRange
        >>> scaling = UnitRange(0.0, 0.8)
        >>> x = scaling(torch.tensor([0.2, 0.4]))
        >>> x, scaling.undo(x)
        (tensor([0.2500, 0.5000]), tensor([0.2000, 0.4000]))
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"UnitRange needs finite low < high; got low={self.low}, high={self.high}.")

    @classmethod
    def of(cls, x: Float[Tensor, "*shape"]) -> Self:
        """The range of the values of `x`."""
        return cls(x.min().item(), x.max().item())

    def __call__(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`(x - low) / (high - low)`."""
        return (x - self.low) / (self.high - self.low)

    def undo(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`low + (high - low) x`."""
        return self.low + (self.high - self.low) * x


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"a finite {name} > 0 is needed; got {name}={value}.")
