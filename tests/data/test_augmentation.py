"""Augmentation by its definition: every image is one of the allowed changes, each occurs as often as it should."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from implicit_l2o.data.augmentation import AbstractAugmentation, HorizontalFlip, RandomCrop, RandomErasing

ALL = [RandomCrop(2, fill=0.5), HorizontalFlip(0.5), RandomErasing(0.9, area=(0.1, 0.25), ratio=(0.2, 5.0))]


def pictures(count: int, colours: int = 3, height: int = 6, width: int = 7) -> Tensor:
    return torch.rand(count, colours, height, width, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("change", ALL, ids=lambda change: type(change).__name__)
def test_repeats_by_its_generator_and_leaves_the_rest_alone(change: AbstractAugmentation) -> None:
    images = pictures(50)
    before, state = images.clone(), torch.get_rng_state()
    one, again, other = change(images, seeded()), change(images, seeded()), change(images, seeded(1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    assert torch.equal(change(images), one)  # the global generator, seeded alike
    assert one.shape == images.shape
    assert one.is_contiguous()


def test_crop_is_a_window_of_the_padded_image_and_all_occur_alike() -> None:
    images = pictures(4000, colours=2)
    moved = RandomCrop(1, fill=0.25)(images, seeded())
    padded = F.pad(images, (1, 1, 1, 1), value=0.25)
    windows = torch.stack([padded[:, :, i : i + 6, j : j + 7] for i in range(3) for j in range(3)])
    same = (windows == moved).flatten(2).all(-1)
    assert bool((same.sum(0) == 1).all())
    share = same.double().mean(1)
    assert bool(((share - 1 / 9).abs() < 5 * math.sqrt(1 / 9 * 8 / 9 / 4000)).all())
    assert torch.equal(RandomCrop(0)(images), images)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flip_mirrors_its_share(probability: float) -> None:
    images = pictures(4000)
    changed = HorizontalFlip(probability)(images, seeded())
    mirrored = (changed == images.flip(3)).flatten(1).all(1)
    kept = (changed == images).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    deviation = math.sqrt(probability * (1 - probability) / 4000)
    assert abs(float(mirrored.double().mean()) - probability) <= 5 * deviation


def rectangles(erased: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Height and width of what is erased, and whether it is a full rectangle in all colours; `erased` `(B, C, H, W)`."""
    everywhere = erased.all(1)
    assert torch.equal(everywhere, erased.any(1))
    tall, wide = everywhere.any(2).sum(1), everywhere.any(1).sum(1)
    return tall, wide, everywhere.flatten(1).sum(1) == tall * wide


def test_erasing_takes_a_rectangle_of_the_wanted_size() -> None:
    images = pictures(4000, height=32, width=32) + 1.0
    area, ratio = (0.1, 0.25), (0.2, 5.0)
    changed = RandomErasing(0.95, area=area, ratio=ratio, value=(0.1, 0.2, 0.3))(images, seeded())
    touched = changed != images
    assert bool(((changed == torch.tensor([0.1, 0.2, 0.3])[:, None, None]) == touched).all())
    tall, wide, full = rectangles(touched)
    assert bool(full.all())
    some = tall > 0
    assert abs(float(some.double().mean()) - 0.95) <= 5 * math.sqrt(0.95 * 0.05 / 4000)
    share = (tall * wide)[some].double() / 1024
    assert float(share.min()) > area[0] - 0.02  # the sides are rounded to pixels
    assert float(share.max()) < area[1] + 0.02
    shape = tall[some].double() / wide[some]
    assert float(shape.min()) > ratio[0] * 0.85
    assert float(shape.max()) < ratio[1] * 1.15
    assert abs(float(shape.log().mean())) < 0.06  # symmetric: a rectangle is as often tall as wide
    # Uniform over the places where the whole rectangle fits: the centre is covered more often than a corner.
    covered = touched[:, 0].double().mean(0)
    assert torch.allclose(covered, covered.flip(0), atol=0.04)
    assert torch.allclose(covered, covered.mT, atol=0.05)
    assert covered[16, 16] > 3 * covered[0, 0] > 0


def test_erasing_does_nothing_where_nothing_fits() -> None:
    images = pictures(20, height=4, width=4)
    assert torch.equal(RandomErasing(1.0, area=(1.0, 1.0), ratio=(4.0, 4.0))(images, seeded()), images)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    low=st.floats(0.01, 1.0),
    high=st.floats(0.01, 1.0),
    seed=st.integers(0, 1000),
)
def test_erasing_never_leaves_the_image(height: int, width: int, low: float, high: float, seed: int) -> None:
    images = torch.ones(8, 1, height, width)
    low, high = sorted((low, high))
    changed = RandomErasing(1.0, area=(low, high), ratio=(0.3, 3.0))(images, seeded(seed))
    tall, wide, full = rectangles(changed != images)
    assert bool(full.all())
    assert int(tall.max()) <= height
    assert int(wide.max()) <= width


@pytest.mark.bad_input
def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"padding >= 0; got padding=-1"):
        RandomCrop(-1)
    with pytest.raises(ValueError, match=r"0 <= probability <= 1; got probability=1.5"):
        HorizontalFlip(1.5)
    with pytest.raises(ValueError, match=r"0 <= probability <= 1; got probability=-0.1"):
        RandomErasing(-0.1)
    with pytest.raises(ValueError, match=r"0 < area\[0\] <= area\[1\] <= 1; got area=\(0.5, 0.2\)"):
        RandomErasing(area=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"0 < ratio\[0\] <= ratio\[1\]; got ratio=\(0.0, 2.0\)"):
        RandomErasing(ratio=(0.0, 2.0))
    with pytest.raises(ValueError, match=r"one for each of 3 colours; got \(0.1, 0.2\)"):
        RandomErasing(1.0, value=(0.1, 0.2))(pictures(2))
