"""Pixel-driven back-projection as a sparse matrix: Kak and Slaney (1988), section 3.3, equation (53)."""

import math
from typing import Any

import numpy as np

from implicit_l2o.physics.geometry import Geometry


def interpolation_matrix(geometry: Geometry) -> Any:
    """The SciPy CSR matrix `(angles * bins, size * size)` of reading a sinogram at every pixel, transposed.

    Linear interpolation between two bins. The transpose of Joseph's projector would do as well up to ripples: with bins
    about as wide as a pixel its weights do not add up to the same number at every pixel (3 % at the rotation centre).
    """
    from scipy.sparse import csr_array, vstack

    size, bins = geometry.size, geometry.sinogram_shape[1]
    axis = (np.arange(size) - (size - 1) / 2) * geometry.pixel_size
    pixels = np.arange(size * size, dtype=np.int32)
    blocks = []
    for angle in geometry.angles:
        x, y = axis[None, :] - geometry.center[0], -axis[:, None] - geometry.center[1]
        s = x * math.cos(angle) + y * math.sin(angle)
        position = (s / geometry.spacing + (bins - 1) / 2).ravel()
        before = np.floor(position)
        share = position - before
        column = np.concatenate([before, before + 1])
        value = np.concatenate([1 - share, share])
        inside = (column >= 0) & (column < bins)
        rows = column[inside].astype(np.int32)
        blocks.append(csr_array((value[inside], (rows, np.tile(pixels, 2)[inside])), shape=(bins, size * size)))
    return vstack(blocks, format="csr")
