"""Room for rows of eight numbers, compiled; `chunks.aligned` is the same outside kernels."""

import numpy as np

from implicit_l2o._numba import compiled


@compiled
def room_for(rows):
    """Rows of eight zeros that begin with a cache line, which vectors would else be read across."""
    whole = np.zeros(8 * rows + 8)
    skip = -(whole.ctypes.data // 8) % 8
    return whole[skip : skip + 8 * rows].reshape(rows, 8)
