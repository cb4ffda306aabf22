"""Hounsfield units, windows, scalings and data from a finer grid."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from implicit_l2o.physics import (
    FilteredBackProjection,
    Geometry,
    GreyWindow,
    Projector,
    UnitRange,
    UpsampledProjector,
    from_hounsfield,
    to_hounsfield,
)

numbers = st.floats(-2000, 5000)


@given(st.lists(numbers, min_size=1, max_size=5), st.floats(0.01, 10))
def test_hounsfield_there_and_back(values: list[float], water: float) -> None:
    hu = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(to_hounsfield(from_hounsfield(hu, water), water), hu, rtol=1e-12, atol=1e-9)
    assert to_hounsfield(torch.tensor([water], dtype=torch.float64), water).item() == pytest.approx(0)


@given(numbers, st.floats(1e-2, 1e4), numbers)
def test_the_unit_range_is_undone(low: float, width: float, value: float) -> None:
    scaling = UnitRange(low, low + width)
    x = torch.tensor([low, low + width, value], dtype=torch.float64)
    torch.testing.assert_close(scaling(x)[:2], torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(scaling.undo(scaling(x)), x, rtol=1e-10, atol=1e-8)
    if low < value:
        assert UnitRange.of(x[[0, 2]]) == UnitRange(low, value)


def test_the_window_clips() -> None:
    shown = GreyWindow(40, 400)(torch.tensor([-161.0, -160.0, 40.0, 240.0, 5000.0]))
    torch.testing.assert_close(shown, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


def disk(size: int) -> Tensor:
    """The rendering of one disk, each pixel its covered share."""
    fine = (np.arange(8 * size) - (8 * size - 1) / 2) / (8 * size)
    inside = (fine[None] - 0.1) ** 2 + (fine[:, None] + 0.05) ** 2 < 0.09
    shares = inside.reshape(size, 8, size, 8).mean((1, 3))
    return torch.tensor(shares, dtype=torch.float32)[None, None]


def test_finer_data_are_close_and_not_the_same() -> None:
    projector = Projector(Geometry.uniform(32, angles=120))
    measure = UpsampledProjector(projector, 3)
    d, crime = measure(disk(96)), projector.apply(disk(32))
    difference = ((d - crime).norm() / crime.norm()).item()
    assert 1e-3 < difference < 0.02
    reconstruct = FilteredBackProjection(projector, "hann", 1.0)
    inside = disk(32) == 1
    assert reconstruct(d)[inside].mean().item() == pytest.approx(reconstruct(crime)[inside].mean().item(), abs=0.01)


def test_its_detector_is_the_projectors() -> None:
    """The finer rays of a bin lie around its middle: the sum over the bins stays, and the centre of mass."""
    projector = Projector(Geometry(16, [0.0, 1.0, 2.5], 31, pixel_size=0.5, detector_spacing=0.6, center=(0.1, 0.3)))
    fine, coarse = UpsampledProjector(projector, 2)(disk(32)), projector.apply(disk(16))
    bins = torch.arange(31.0)
    torch.testing.assert_close(fine.sum(-1), coarse.sum(-1), rtol=1e-2, atol=0)
    torch.testing.assert_close(
        (fine * bins).sum(-1) / fine.sum(-1), (coarse * bins).sum(-1) / coarse.sum(-1), rtol=0, atol=0.02
    )


def test_coarse_images_are_interpolated() -> None:
    projector = Projector(Geometry.uniform(16, angles=8))
    measure, x = UpsampledProjector(projector), disk(16)
    fine = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    assert torch.equal(measure(x), measure(fine))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: to_hounsfield(torch.zeros(1), 0.0), "water > 0 is needed; got water=0.0"),
        (lambda: from_hounsfield(torch.zeros(1), math.nan), "water=nan"),
        (lambda: GreyWindow(0, -1), "width > 0 is needed; got width=-1"),
        (lambda: GreyWindow(math.inf, 1), "finite level; got level=inf"),
        (lambda: UnitRange(1.0, 1.0), "low < high; got low=1.0, high=1.0"),
        (lambda: UnitRange.of(torch.full((2,), math.nan)), "low < high; got low=nan"),
        (lambda: UpsampledProjector(Projector(Geometry.uniform(8, angles=2)), 1), "factor >= 2; got factor=1"),
        (
            lambda: UpsampledProjector(Projector(Geometry.uniform(8, angles=2)))(torch.zeros(1, 1, 24, 24)),
            r"side 16 or 8; got \(1, 1, 24, 24\)",
        ),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
