"""Filtered back-projection: absolute values, angles that are not uniform, bad input."""

import math
from typing import get_args

import numpy as np
import pytest
import torch

from implicit_l2o.physics import FilteredBackProjection, Geometry, Projector
from implicit_l2o.physics.filtered_back_projection import Filter


def smooth_disk(size: int) -> torch.Tensor:
    """1 inside a disk off the centre, falling to 0 over a tenth of the image."""
    across = (torch.arange(size) - (size - 1) / 2) * 2 / size
    radius = ((across[None] - 0.2) ** 2 + (across[:, None] + 0.1) ** 2).sqrt()
    return (0.5 - 0.5 * torch.tanh((radius - 0.5) / 0.05))[None, None]


@pytest.mark.parametrize("name", get_args(Filter))
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.uniform(64, angles=180),
        Geometry(
            64,
            np.linspace(0, 2 * np.pi, 300, endpoint=False),
            121,
            pixel_size=0.25,
            detector_spacing=0.2,
            center=(0.4, -0.3),
        ),
    ],
    ids=["uniform", "full turn, other units"],
)
def test_values_are_those_of_the_image(name: Filter, geometry: Geometry) -> None:
    disk = smooth_disk(64)
    projector = Projector(geometry)
    x = FilteredBackProjection(projector, name, 1.0)(projector.apply(disk))
    plateau = disk > 0.99
    assert x[plateau].mean().item() == pytest.approx(1, abs=0.005)
    assert (x - disk).abs()[plateau].max() < 0.01
    assert (x - disk).norm() < 0.04 * disk.norm()


def test_the_cutoff_smooths() -> None:
    projector = Projector(Geometry.uniform(64, angles=90))
    noise = torch.randn(1, *projector.out_shape)
    sizes = [FilteredBackProjection(projector, "hann", cutoff)(noise).norm() for cutoff in (0.25, 0.5, 1.0)]
    assert sizes == sorted(sizes)
    assert 2 * sizes[0] < sizes[2]


def test_unequal_angles_are_weighted() -> None:
    """Twice as many angles in one half of the turn: it must not count twice."""
    angles = np.concatenate([np.arange(0, np.pi / 2, np.pi / 360), np.arange(np.pi / 2, np.pi, np.pi / 180)])
    projector, disk = Projector(Geometry(64, angles)), smooth_disk(64)
    x = FilteredBackProjection(projector, "hann", 1.0)(projector.apply(disk))
    assert (x - disk).norm() < 0.04 * disk.norm()


def test_gradient_is_the_transpose() -> None:
    reconstruct = FilteredBackProjection(Projector(Geometry.uniform(8, angles=4), dtype=torch.float64))
    d = torch.randn(2, 4, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: reconstruct(d).square(), d)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: FilteredBackProjection(p, "hanning"), "ram-lak, shepp-logan, .*; got 'hanning'"),
        (lambda p: FilteredBackProjection(p, cutoff=0.0), "0 < cutoff <= 1; got cutoff=0.0"),
        (lambda p: FilteredBackProjection(p, cutoff=math.nan), "cutoff=nan"),
        (lambda p: FilteredBackProjection(p)(torch.zeros(1, 4, 12)), r"\(B, 4, 13\); got \(1, 4, 12\)"),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(Projector(Geometry.uniform(8, angles=4)))
