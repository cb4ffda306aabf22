"""Random ellipse phantoms for computed tomography, the same for a seed wherever and however many are made.

Rules: Leuschner, Schmidt and Erzmann, "DIVal" (2019), data set "ellipses"; they go back to Adler and Oktem,
"Solving ill-posed inverse problems using iterative deep neural networks" (2017). Two things are our own and why there is a
`VERSION`: pixel centres lie at the centres of the cells that tile `[-1, 1]^2`, so that a phantom is the same object at every
size (ODL moves the outermost centres onto the border), and the numbers are drawn phantom by phantom.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

VERSION = "1"
"""Changes whenever a seed's phantoms change; results that were made of phantoms carry it."""

CONVENTIONS = ("norm", "clip")
Convention: TypeAlias = Literal["norm", "clip"]

MAX_ELLIPSES = 70
_MEAN_ELLIPSES = 40
# Intensities are multiples of this. Then sums of 70 of them are exact in float64: background is zero and plateaus are flat,
# in whatever order the ellipses are added.
_QUANTUM = 2.0**-40
_CHUNK_ELEMENTS = 1 << 20  # ellipses times rows at a time, which bounds the memory


def ellipse_phantoms(
    count: int,
    *,
    size: int,
    seed: int,
    first: int = 0,
    convention: Convention = "norm",
    reference: int | None = None,
    progress: bool = False,
) -> Float[Tensor, "count 1 size size"]:
    """Phantoms `first, ..., first + count - 1` of a seed, attenuation in [0, 1], without anti-aliasing.

    A phantom on `[-1, 1]^2` is the sum of `min(Poisson(40), 70)` ellipses of intensity `U(-0.4, 1)`, half-axes `0.2 Exp(1)`,
    centre `U(-0.9, 0.9)^2` and angle `U(0, 2 pi)`. Its grey levels are brought to [0, 1] by the convention:

    - `"norm"` (DIVal): pixels other than 0 are shifted by `-min`, then all are divided by `max`.
    - `"clip"`: values below 0 and above 1 are cut off. Harder images: every method loses 3 to 5 dB against `"norm"`.

    Phantom `i` of a seed does not depend on `count` or `first`, and is the same object at every `size`.

    Args:
        count: how many.
        size: height and width in pixels; pixel `i` of an axis is sampled at `-1 + (2 i + 1) / size`.
        seed: at least 0.
        first: the index of the first one.
        convention: how values are brought to [0, 1].
        reference: the size whose pixels give `min` and `max` under `"norm"`; None is `size`. With it a phantom that is made
            at a finer size, for data without the inverse crime, has the grey levels of the coarse one (what is not seen
            there at all is clipped to [0, 1]).
        progress: show a bar.

    Raises:
        ValueError: a count, size, seed or index below its range; an unknown convention.

    Example:
        >>> from implicit_l2o.data.ellipses import ellipse_phantoms
        >>> coarse = ellipse_phantoms(2, size=64, seed=0)
        >>> fine = ellipse_phantoms(2, size=256, seed=0, reference=64)
        >>> coarse.shape, float(coarse.min()), float(coarse.max())
        (torch.Size([2, 1, 64, 64]), 0.0, 1.0)
        >>> bool((torch.nn.functional.avg_pool2d(fine, 4) - coarse).abs().mean() < 0.02)
        True
    """
    for name, value, least in (("count", count, 0), ("size", size, 1), ("seed", seed, 0), ("first", first, 0)):
        if value < least:
            raise ValueError(f"ellipse_phantoms needs {name} >= {least}; got {name}={value}.")
    if convention not in CONVENTIONS:
        raise ValueError(f"ellipse_phantoms knows the conventions 'norm' and 'clip'; got convention={convention!r}.")
    if reference is not None and reference < 1:
        raise ValueError(f"ellipse_phantoms needs reference >= 1; got reference={reference}.")

    images = np.empty((count, 1, size, size), dtype=np.float32)
    for chunk in _chunks(count, max(size, reference or size), progress):
        ellipses = _draw(range(first + chunk.start, first + chunk.stop), seed)
        raw = _render(ellipses, len(chunk), size)
        if convention == "norm":
            levels = raw if reference in (None, size) else _render(ellipses, len(chunk), reference)
            raw = _normalise(raw, levels)
        images[chunk.start : chunk.stop, 0] = np.clip(raw, 0.0, 1.0)
    return torch.from_numpy(images)


def _chunks(count: int, size: int, progress: bool) -> Iterator[range]:
    from tqdm import tqdm

    step = max(1, _CHUNK_ELEMENTS // (_MEAN_ELLIPSES * size))
    with tqdm(total=count, desc="ellipse phantoms", unit="image", leave=False, disable=not progress) as bar:
        for start in range(0, count, step):
            chunk = range(start, min(start + step, count))
            yield chunk
            bar.update(len(chunk))


def _draw(indices: range, seed: int) -> Float[np.ndarray, "ellipses 7"]:
    """One row an ellipse: its phantom's place in `indices`, intensity, two half-axes, centre (row, column), angle."""
    rows = []
    for place, index in enumerate(indices):
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        # Uniform numbers alone, inverted here: NumPy promises its stream of those for longer than its Poisson numbers.
        count = min(int(np.searchsorted(_POISSON, generator.random(), side="right")), MAX_ELLIPSES)
        u = generator.random((count, 6))
        row = np.empty((count, 7))
        row[:, 0] = place
        row[:, 1] = np.round((1.4 * u[:, 0] - 0.4) / _QUANTUM) * _QUANTUM
        row[:, 2:4] = -0.2 * np.log1p(-u[:, 1:3])
        row[:, 4:6] = 1.8 * u[:, 3:5] - 0.9
        row[:, 6] = 2 * np.pi * u[:, 5]
        rows.append(row)
    return np.concatenate(rows)


def _poisson_distribution() -> Float[np.ndarray, " counts"]:
    """`P(N <= k)` for `k = 0, ..., MAX_ELLIPSES - 1`."""
    k = np.arange(1, MAX_ELLIPSES)
    logarithm = np.concatenate([[0.0], np.cumsum(np.log(_MEAN_ELLIPSES / k))]) - _MEAN_ELLIPSES
    return np.cumsum(np.exp(logarithm))


_POISSON = _poisson_distribution()


def _render(ellipses: Float[np.ndarray, "ellipses 7"], count: int, size: int) -> Float[np.ndarray, "count size size"]:
    """Sum of the ellipses' intensities at the pixel centres.

    An ellipse meets a row of pixels in one interval: its intensity is added where the interval begins and taken away behind
    its end, and a running sum along the rows fills all of them at once.
    """
    place, intensity, a, b, row, column, angle = ellipses.T[:, :, None]
    y = (2 * np.arange(size) + 1) / size - 1 - row  # (ellipses, size)
    cos, sin = np.cos(angle), np.sin(angle)
    extent = np.maximum((a * cos) ** 2 + (b * sin) ** 2, np.finfo(float).tiny)  # half its height, squared
    middle = column + cos * sin * (a**2 - b**2) / extent * y
    half_width = a * b / extent * np.sqrt(np.maximum(extent - y**2, 0.0))

    # Pixel j lies inside where middle - half_width <= (2 j + 1) / size - 1 <= middle + half_width.
    begin = np.clip(np.ceil(((middle - half_width + 1) * size - 1) / 2), 0, size)
    end = np.clip(np.floor(((middle + half_width + 1) * size - 1) / 2) + 1, 0, size)
    met, at = np.nonzero((y**2 <= extent) & (begin < end))
    # Rows have one place more than pixels, for intervals that reach the border.
    line = (place[met, 0].astype(np.int64) * size + at) * (size + 1)
    index = np.concatenate([line + begin[met, at].astype(np.int64), line + end[met, at].astype(np.int64)])
    weight = np.concatenate([intensity[met, 0], -intensity[met, 0]])
    jumps = np.bincount(index, weight, minlength=count * size * (size + 1)).astype(
        float
    )  # integers where nothing is met
    return np.cumsum(jumps.reshape(count, size, size + 1), axis=-1)[..., :size]


def _normalise(
    raw: Float[np.ndarray, "count size size"], levels: Float[np.ndarray, "count other other"]
) -> Float[np.ndarray, "count size size"]:
    """DIVal's convention with the lowest and highest value of `levels`; an image without any contrast becomes zero."""
    lowest = levels.min(axis=(1, 2), keepdims=True)

    def lift(image: np.ndarray) -> np.ndarray:
        return np.where(image != 0, image - lowest, 0.0)

    highest = lift(levels).max(axis=(1, 2), keepdims=True)
    return lift(raw) / np.where(highest > 0, highest, 1.0)
