"""The permutations of the rays are those of the flipped image, also where the scanner turns about another point."""

import math

import pytest
import torch
from torch import Tensor

from implicit_l2o.physics import Geometry, Projector, sinogram_symmetries

ANGLES = [0.2, 1.0, math.pi - 1.0, math.pi - 0.2]


def half_turn(x: Tensor) -> Tensor:
    return x.flip(-1, -2)


def left_right(x: Tensor) -> Tensor:
    return x.flip(-1)


@pytest.mark.parametrize(
    ("geometry", "flips"),
    [
        (Geometry(9, ANGLES), [half_turn, left_right]),
        (Geometry(9, ANGLES[:3]), [half_turn]),
        (Geometry(9, ANGLES, center=(0.0, 0.7)), [left_right]),
        (Geometry(9, ANGLES, center=(0.7, 0.0)), []),
    ],
)
def test_a_flip_of_the_image_permutes_the_rays(geometry: Geometry, flips: list) -> None:
    projector = Projector(geometry, dtype=torch.float64)
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    symmetries = sinogram_symmetries(geometry)
    assert len(symmetries) == len(flips)
    for permutation, flip in zip(symmetries, flips, strict=True):
        torch.testing.assert_close(projector.apply(flip(x)).flatten(), projector.apply(x).flatten()[permutation])
