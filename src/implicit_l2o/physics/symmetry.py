"""Flips of the image that permute the rays of a geometry, and so commute with its projector."""

import math

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from implicit_l2o.physics.geometry import Geometry

_TOLERANCE = 1e-9  # radians


def sinogram_symmetries(geometry: Geometry) -> tuple[Int[Tensor, " m"], ...]:
    """Permutations of the flattened sinogram that stand for a half-turn of the image and for its left-right flip.

    A half-turn takes the line `(theta, s)` to `(theta, -s)`: the bins are reversed. A flip takes it to `(pi - theta, s)`:
    the directions are reversed. Each is left out where it fails: the half-turn where the scanner turns about another point
    than the middle of the image, the flip where that point is off to a side or the angles are not symmetric.

    Returns:
        None, one or two involutions, which commute with each other and with `A A^T`: what `il2o.Graph` takes.

    Example:
        >>> from implicit_l2o.physics import Geometry, sinogram_symmetries
        >>> [permutation.tolist() for permutation in sinogram_symmetries(Geometry.uniform(2, angles=2, bins=3))]
        [[2, 1, 0, 5, 4, 3], [3, 4, 5, 0, 1, 2]]
    """
    angles, bins = geometry.sinogram_shape
    rays = torch.arange(angles * bins).reshape(angles, bins)
    symmetries = [rays.flip(1).flatten()] if geometry.center == (0, 0) else []
    directions = _mirrored(np.asarray(geometry.angles))
    if directions is not None and geometry.center[0] == 0:
        symmetries.append(rays[torch.as_tensor(directions)].flatten())
    return tuple(symmetries)


def _mirrored(angles: np.ndarray) -> np.ndarray | None:
    """For each angle the index of `pi - angle`, modulo a full turn; None where one has no or several such partners."""
    difference = (angles[:, None] + angles[None] - math.pi) / (2 * math.pi)
    partner = np.abs(difference - np.round(difference)) * 2 * math.pi < _TOLERANCE
    return partner.argmax(1) if (partner.sum(1) == 1).all() else None
