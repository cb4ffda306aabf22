"""Joseph's projector as a sparse matrix. P. M. Joseph, IEEE Trans. Med. Imaging 1 (1982) 192-196."""

import math
from typing import Any

import numpy as np

from implicit_l2o.physics.geometry import Geometry

MOST_NONZEROS = 50_000_000  # 600 MB for the matrix and its transpose in float32


def expected_nonzeros(geometry: Geometry) -> float:
    """How many entries the matrix will have, to about a per cent: two for each row or column that a ray crosses."""
    angles = np.asarray(geometry.angles)
    steepness = np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles)))
    width = geometry.size * geometry.pixel_size * steepness / geometry.spacing  # in bins, of one row's shadow
    bins = geometry.sinogram_shape[1]
    return float((2 * geometry.size * np.minimum(width, bins)).sum())


def joseph_matrix(geometry: Geometry) -> Any:
    """The SciPy CSR matrix `(angles * bins, size * size)` of line integrals, in float64.

    A ray that is steeper than 45 degrees is sampled where it crosses the middle of each row, and interpolates linearly
    between two neighbouring columns; a flatter one the other way round. Beyond its border the image is zero.

    Raises:
        ValueError: there would be more than 5e7 entries.
    """
    from scipy.sparse import csr_array, vstack

    expected = expected_nonzeros(geometry)
    if expected > MOST_NONZEROS:
        raise ValueError(
            f"Projector stores its matrix, at most {MOST_NONZEROS:.0e} entries; this geometry has about {expected:.1e}. "
            "Take a matrix-free projector through implicit_l2o.interop.projectors: astra_projector, or wrap a deepinv, "
            "ODL, PyLops or SciPy operator by linear_operator."
        )
    return vstack([csr_array(_one_angle(geometry, angle)) for angle in geometry.angles], format="csr")


def _one_angle(geometry: Geometry, angle: float) -> Any:
    """The rows of one angle; lengths in pixels until the end."""
    from scipy.sparse import csr_array

    size, bins = geometry.size, geometry.sinogram_shape[1]
    cosine, sine = math.cos(angle), math.sin(angle)
    shift = geometry.center[0] * cosine + geometry.center[1] * sine
    s = ((np.arange(bins) - (bins - 1) / 2)[:, None] * geometry.spacing + shift) / geometry.pixel_size
    line = np.arange(size)[None, :]  # the row (or, of a flat ray, the column) that is crossed
    middle = (size - 1) / 2
    steep = abs(cosine) >= abs(sine)
    if steep:
        across = (s - (middle - line) * sine) / cosine + middle  # column at which row `line` is crossed
        weight = 1 / abs(cosine)
    else:
        across = middle - (s - (line - middle) * cosine) / sine  # row at which column `line` is crossed
        weight = 1 / abs(sine)
    before = np.floor(across)
    share = across - before
    ray = np.broadcast_to(np.arange(bins)[:, None], across.shape)
    line = np.broadcast_to(line, across.shape)
    parts = []
    for other, value in ((before, 1 - share), (before + 1, share)):
        inside = (other >= 0) & (other < size) & (value > 0)
        first, second = (line[inside], other[inside]) if steep else (other[inside], line[inside])
        parts.append(
            (
                value[inside] * weight * geometry.pixel_size,
                ray[inside],
                first.astype(np.int64) * size + second.astype(np.int64),
            )
        )
    values, rays, pixels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return csr_array((values, (rays.astype(np.int32), pixels.astype(np.int32))), shape=(bins, size * size))
