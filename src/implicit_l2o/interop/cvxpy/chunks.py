"""Batches as chunks of eight samples, which stand in the last axis as the compiled loops have them."""

import math

import numpy as np
from jaxtyping import Float, Shaped

WIDTH = 8  # samples of a chunk, which the kernels write out one by one: compilers make vectors of that
_SMALL = 4096  # numbers, below which a cache line more or less does not count

Chunks = Float[np.ndarray, "chunks rows 8"]


def aligned(*shape: int) -> np.ndarray:
    """Room whose rows of eight begin with a cache line, which vectors would else be read across."""
    count = math.prod(shape)
    if count < _SMALL:
        return np.empty(shape)
    whole = np.empty(count + WIDTH)
    skip = -(whole.__array_interface__["data"][0] // 8) % WIDTH
    return whole[skip : skip + count].reshape(shape)


def to_chunks(rows: Shaped[np.ndarray, "B k"]) -> Shaped[np.ndarray, "chunks k 8"]:
    """Eight samples in the last axis; the last sample again where their number is no multiple of eight."""
    count = -len(rows) % WIDTH
    if count:
        rows = np.concatenate([rows, np.broadcast_to(rows[-1:], (count, rows.shape[1]))])
    chunks = rows.reshape(len(rows) // WIDTH, WIDTH, rows.shape[1]).transpose(0, 2, 1)
    if rows.dtype != np.float64:
        return np.ascontiguousarray(chunks)
    out = aligned(*chunks.shape)
    out[:] = chunks
    return out


def from_chunks(chunks: Chunks, batch: int) -> Float[np.ndarray, "B k"]:
    """One row a sample."""
    return np.ascontiguousarray(chunks.transpose(0, 2, 1).reshape(-1, chunks.shape[1])[:batch])
