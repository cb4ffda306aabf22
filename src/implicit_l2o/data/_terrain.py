"""Terrain maps drawn from random fields: which terrain a cell has, and an image of it that no colour table can read.

Everything is NumPy over whole blocks of maps. The tile set (textures, variants) is the same for all maps, as in a game; the
terrain, the choice of tiles, the borders, the light and the noise are a map's own.
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

TILE = 8  # pixels along one side of a cell
COSTS = np.array([0.8, 1.2, 5.3, 7.7, 9.2], dtype=np.float32)  # grass, earth, forest, water, rock

_COLOURS = np.array([[94, 126, 62], [126, 108, 72], [74, 104, 58], [74, 100, 114], [110, 110, 102]], dtype=np.float32)
_CONTRAST = np.array([12.0, 9.0, 22.0, 14.0, 24.0], dtype=np.float32)  # of a texture, standard deviation
_GRAIN = ((0.7, 0.7), (0.7, 2.0), (1.6, 1.6), (0.8, 3.0), (2.2, 0.8))  # its length in pixels, down and across
_BIAS = np.array([0.35, 0.25, 0.0, 0.0, 0.0], dtype=np.float32)  # how much more common, in deviations of a field
_VARIANTS = 4
_PERIOD = 16  # pixels after which a texture repeats
_SMOOTH = 1.3  # length of the terrain in cells
_RAGGED = 2  # pixels by which a border leaves the edge of its cell
_NOISE = 8  # half-width of a pixel's noise


def terrain(rng: np.random.Generator, count: int, side: int) -> Int[np.ndarray, "N side side"]:
    """The terrain of every cell, coherent in space: the largest of five smoothed random fields."""
    reach = np.arange(side + 8) - 4.0
    kernel = np.exp(-((np.arange(side)[:, None] - reach) ** 2) / (2 * _SMOOTH**2)).astype(np.float32)
    kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)  # so that a field has variance 1
    white = rng.standard_normal((count, len(COSTS), len(reach), len(reach)), dtype=np.float32)
    fields = kernel @ white @ kernel.T + _BIAS[:, None, None]
    return fields.argmax(1)


def draw(rng: np.random.Generator, kinds: Int[np.ndarray, "N side side"]) -> UInt8[np.ndarray, "N height width 3"]:
    """The images of maps: textured tiles in variants, ragged borders, light that changes over the map, and noise."""
    count, side, _ = kinds.shape
    pixels = side * TILE
    tiles = _tiles().reshape(-1, 3)

    # Where a pixel takes its terrain from: near a border often the neighbour, so that cells grow into each other.
    shift = rng.integers(-_RAGGED, _RAGGED + 1, (2, count, pixels // 2, pixels // 2), dtype=np.int8)
    shift = shift.repeat(2, axis=2).repeat(2, axis=3)
    place = np.arange(pixels, dtype=np.int16)
    row = (place[:, None] + shift[0]).clip(0, pixels - 1) // TILE
    column = (place + shift[1]).clip(0, pixels - 1) // TILE
    cell = (np.arange(count, dtype=np.int32)[:, None, None] * side + row) * side + column

    # Each cell has a variant of its texture and a place in it.
    variant = rng.integers(0, _VARIANTS, kinds.shape, dtype=np.int32)
    start = rng.integers(0, _PERIOD, (2, *kinds.shape), dtype=np.int32)
    texture = (kinds.astype(np.int32) * _VARIANTS + variant).ravel()[cell]
    y = (start[0].ravel()[cell] + place[:, None]) % _PERIOD
    x = (start[1].ravel()[cell] + place) % _PERIOD
    image = tiles[(texture * _PERIOD + y) * _PERIOD + x]

    image *= _light(rng, count, pixels)
    image *= rng.uniform(0.98, 1.02, (count, 1, 1, 3)).astype(np.float32)  # a tint
    image += rng.integers(-_NOISE, _NOISE + 1, image.shape, dtype=np.int8)
    return image.clip(0, 255).astype(np.uint8)


def _light(rng: np.random.Generator, count: int, pixels: int) -> Float[np.ndarray, "N height width 1"]:
    """A brightness for each map, which rises or falls linearly over it."""
    place = np.linspace(-1.0, 1.0, pixels, dtype=np.float32)
    level = rng.uniform(0.92, 1.08, (count, 1, 1)).astype(np.float32)
    slope = rng.uniform(-0.06, 0.06, (2, count, 1, 1)).astype(np.float32)
    return (level + slope[0] * place[:, None] + slope[1] * place)[..., None]


@cache
def _tiles() -> NDArray[np.float32]:
    """The tile set, `(terrains, variants, period, period, 3)`: smoothed noise around a colour, periodic."""
    rng = np.random.default_rng(20)
    tiles = np.empty((len(COSTS), _VARIANTS, _PERIOD, _PERIOD, 3), dtype=np.float32)
    frequency = np.fft.fftfreq(_PERIOD) * 2 * np.pi
    for kind, (down, across) in enumerate(_GRAIN):
        response = np.exp(-((frequency[:, None] * down) ** 2 + (frequency * across) ** 2) / 2)
        for variant in range(_VARIANTS):
            spectrum = np.fft.fft2(rng.standard_normal((_PERIOD, _PERIOD))) * response
            spectrum[0, 0] = 0.0
            pattern = np.fft.ifft2(spectrum).real
            pattern *= _CONTRAST[kind] / pattern.std()
            colour = _COLOURS[kind] + 5.0 * rng.standard_normal(3)
            tiles[kind, variant] = colour + pattern[..., None] * rng.uniform(0.8, 1.2, 3)
    return tiles
