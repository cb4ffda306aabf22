"""Ellipse phantoms: against a pixel-by-pixel oracle, their statistics, and that a seed means the same phantoms for ever."""

import hashlib
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from implicit_l2o.data import ellipses
from implicit_l2o.data.ellipses import MAX_ELLIPSES, VERSION, ellipse_phantoms


def slow_image(rows: np.ndarray, size: int) -> np.ndarray:
    """The definition: every pixel centre is tested against every ellipse."""
    centre = (2 * np.arange(size) + 1) / size - 1
    image = np.zeros((size, size))
    for _, intensity, a, b, row, column, angle in rows:
        dy, dx = np.meshgrid(centre - row, centre - column, indexing="ij")
        along, across = np.cos(angle) * dy + np.sin(angle) * dx, np.cos(angle) * dx - np.sin(angle) * dy
        image[(along / a) ** 2 + (across / b) ** 2 <= 1] += intensity
    return image


@given(seed=st.integers(0, 10**6), first=st.integers(0, 1000), size=st.sampled_from([1, 17, 32]))
def test_pixels_are_those_inside_the_ellipses(seed: int, first: int, size: int) -> None:
    image = slow_image(ellipses._draw(range(first, first + 1), seed), size)
    clipped = ellipse_phantoms(1, size=size, seed=seed, first=first, convention="clip")[0, 0]
    assert torch.equal(clipped, torch.from_numpy(image.clip(0, 1).astype(np.float32)))

    image[image != 0] -= image.min()  # DIVal, word for word
    image /= image.max() or 1.0
    normed = ellipse_phantoms(1, size=size, seed=seed, first=first)[0, 0]
    assert torch.equal(normed, torch.from_numpy(image.astype(np.float32)))


def test_a_seed_means_the_same_phantoms_for_ever() -> None:
    """Whoever changes these images on purpose raises `VERSION`."""
    images = ellipse_phantoms(20, size=64, seed=7)
    digest = hashlib.sha256((255 * images).round().to(torch.uint8).numpy().tobytes()).hexdigest()
    assert (VERSION, digest[:16]) == ("1", "e81c0f8f9b48cfd7")


def test_phantom_i_depends_on_nothing_but_seed_and_i() -> None:
    many = ellipse_phantoms(300, size=32, seed=3)
    assert torch.equal(many[250:260], ellipse_phantoms(10, size=32, seed=3, first=250))
    assert torch.equal(many[:1], ellipse_phantoms(1, size=32, seed=3))
    assert not torch.equal(many[:10], ellipse_phantoms(10, size=32, seed=4))
    assert len(torch.unique(many.flatten(1), dim=0)) == 300


@pytest.mark.parametrize("convention", ["norm", "clip"])
def test_the_finer_image_is_of_the_same_object(convention: ellipses.Convention) -> None:
    coarse = ellipse_phantoms(5, size=64, seed=1, convention=convention)
    fine = ellipse_phantoms(5, size=192, seed=1, convention=convention, reference=64)
    # A coarse centre is the middle one of its 3 x 3 fine ones.
    assert torch.equal(fine[:, :, 1::3, 1::3], coarse)


def test_values_lie_in_the_unit_interval() -> None:
    images = ellipse_phantoms(50, size=48, seed=5)
    assert images.dtype == torch.float32
    assert torch.equal(images.amin((1, 2, 3)), torch.zeros(50))
    assert torch.equal(images.amax((1, 2, 3)), torch.ones(50))


def test_statistics_are_those_of_the_rules() -> None:
    rows = ellipses._draw(range(2000), seed=11)
    counts = np.bincount(rows[:, 0].astype(int), minlength=2000)
    assert counts.max() <= MAX_ELLIPSES
    assert abs(counts.mean() - 40) < 4 * np.sqrt(40 / 2000)
    assert abs(counts.var() - 40) < 4 * 40 * np.sqrt(2 / 2000)
    several = np.sqrt(1 / len(rows))  # one standard error of a variable of unit variance
    for column, mean, deviation in (
        (1, 0.3, 1.4 / np.sqrt(12)),
        (2, 0.2, 0.2),
        (3, 0.2, 0.2),
        (4, 0.0, 1.8 / np.sqrt(12)),
        (5, 0.0, 1.8 / np.sqrt(12)),
        (6, np.pi, 2 * np.pi / np.sqrt(12)),
    ):
        assert abs(rows[:, column].mean() - mean) < 4 * deviation * several
        assert abs(rows[:, column].std() - deviation) < 0.03 * deviation
    assert rows[:, 1].min() >= -0.4
    assert rows[:, 1].max() <= 1
    assert np.abs(rows[:, 4:6]).max() <= 0.9
    assert np.abs(np.corrcoef(rows[:, 1:].T) - np.eye(6)).max() < 4 * several


def test_thousands_in_seconds() -> None:
    start = time.process_time()
    ellipse_phantoms(250, size=128, seed=0)
    assert time.process_time() - start < 3  # 5000 in a minute; they take a few seconds


def test_no_phantoms_and_no_contrast() -> None:
    assert ellipse_phantoms(0, size=8, seed=0).shape == (0, 1, 8, 8)
    assert torch.isfinite(ellipse_phantoms(50, size=1, seed=0)).all()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "needs count >= 0; got count=-1"),
        ({"size": 0}, "needs size >= 1; got size=0"),
        ({"seed": -3}, "needs seed >= 0; got seed=-3"),
        ({"first": -1}, "needs first >= 0; got first=-1"),
        ({"convention": "divide"}, "'norm' and 'clip'; got convention='divide'"),
        ({"reference": 0}, "needs reference >= 1; got reference=0"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"count": 1, "size": 8, "seed": 0} | options
    with pytest.raises(ValueError, match=message):
        ellipse_phantoms(arguments.pop("count"), **arguments)
