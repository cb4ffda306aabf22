"""Compiled `L D L^T` factorisations of many matrices with one sparsity pattern, eight of them in each vector instruction.

Source of the symbolic part: T. A. Davis, Direct Methods for Sparse Linear Systems (2006), chapter 4; the numeric part is
left-looking, with the samples innermost: values have the shape `(entries, 8)`. Columns that continue each other's
pattern are a panel, which updates later ones as a dense matrix (E. Ng and B. Peyton, SIAM J. Sci. Comput. 14, 1993).
"""

from typing import NamedTuple

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy.ldl_panels import Panels, panels, room_of, single, update
from implicit_l2o.interop.cvxpy.ldl_vectors import (
    add_products,
    scale_rows,
    subtract_column,
    subtract_columns,
    subtract_products,
)

_TAIL = 64  # columns, below which a dense tail is nothing else than other columns


class Shape(NamedTuple):
    """The pattern of L.

    Attributes:
        columns: where each column starts.
        below: the rows of its entries below the diagonal, in order.
        total: where each row starts in the two that follow, which have no entries that belong to blocks of panels.
        left: the columns of its entries, in order ...
        place: ... and where they stand.
        joined: by column, whether it continues the pattern of the one before it.
        panels: of the columns.
        tail: from which column on L is dense, where that is worth a name; else the number of columns.
    """

    columns: np.ndarray
    below: np.ndarray
    total: np.ndarray
    left: np.ndarray
    place: np.ndarray
    joined: np.ndarray
    panels: Panels
    tail: int


@compiled
def symbolic(size, starts, rows):
    """The pattern of L, given that of the upper triangle by columns."""
    parent, mark, counts = np.full(size, -1), np.full(size, -1), np.zeros(size, np.int64)
    for j in range(size):
        mark[j] = j
        for p in range(starts[j], starts[j + 1]):
            i = rows[p]
            while i < j and mark[i] != j:
                if parent[i] == -1:
                    parent[i] = j
                counts[i] += 1
                mark[i] = j
                i = parent[i]
    columns = np.zeros(size + 1, np.int64)
    for j in range(size):
        columns[j + 1] = columns[j] + counts[j]
    below, filled = np.empty(columns[size], np.int32), np.zeros(size, np.int64)
    mark[:] = -1
    for j in range(size):
        mark[j] = j
        for p in range(starts[j], starts[j + 1]):
            i = rows[p]
            while i < j and mark[i] != j:
                below[columns[i] + filled[i]] = j
                filled[i] += 1
                mark[i] = j
                i = parent[i]
    tail = size
    while tail > 0 and counts[tail - 1] == size - tail:
        tail -= 1
    tail = tail if size - tail >= _TAIL else size
    # A column that continues the pattern of the one before it may be used together with that.
    joined = np.zeros(size, np.bool_)
    for k in range(1, size):
        joined[k] = k != tail and parent[k - 1] == k and counts[k - 1] == counts[k] + 1
    found = panels(joined, columns, below)
    left, place = np.empty(columns[size], np.int32), np.empty(columns[size], np.int32)
    total = np.zeros(size + 1, np.int64)
    filled[:] = 0
    for k in range(size):
        for p in range(columns[k], columns[k + 1]):
            filled[below[p]] += 1 if single(found, columns, k, p) else 0
    for j in range(size):
        total[j + 1] = total[j] + filled[j]
    filled[:] = 0
    for k in range(size):
        for p in range(columns[k], columns[k + 1]):
            j = below[p]
            if single(found, columns, k, p):
                left[total[j] + filled[j]], place[total[j] + filled[j]] = k, p
                filled[j] += 1
    return Shape(columns, below, total, left[: total[size]], place[: total[size]], joined, found, tail)


@compiled
def places_of(size, columns, below, rows, cols):
    """Where the entries of the lower triangle stand in L; `-1 - j` for the diagonal."""
    out = np.empty(len(rows), np.int32)
    for e in range(len(rows)):
        i, j = max(rows[e], cols[e]), min(rows[e], cols[e])
        if i == j:
            out[e] = -1 - j
            continue
        low, high = columns[j], columns[j + 1]
        while below[low] != i and low < high:
            middle = (low + high) // 2
            if below[middle] <= i:
                low = middle
            else:
                high = middle
        out[e] = low
    return out


@compiled
def factor(shape, where, values, shift, signs, least, low, diagonal, work, stop):
    """Factor `K + diag(shift)`, entries `values` at `where`; a pivot of the wrong sign or below `least` is replaced.

    Columns from `stop` on become those of the Schur complement of the columns before it.
    """
    columns, below, total, left, place, joined, grouped, _ = shape
    size = len(signs)
    room = room_of(grouped)
    pair = np.empty((2, 8))
    low[:] = 0.0
    for j in range(size):
        for s in range(8):
            diagonal[j, s] = shift[j]
    for e in range(len(where)):
        p = where[e]
        if p >= 0:
            for s in range(8):
                low[p, s] += values[e, s]
        else:
            for s in range(8):
                diagonal[-1 - p, s] += values[e, s]
    for j in range(size):
        if grouped.start[j] < grouped.start[j + 1]:
            update(grouped, columns, below, low, diagonal, j, room, stop)
        r = total[j]
        while r < total[j + 1] and left[r] < stop:
            k, q = left[r], place[r]
            count = columns[k + 1] - q - 1
            for s in range(8):
                pair[0, s] = low[q, s] * diagonal[k, s]
                diagonal[j, s] -= low[q, s] * pair[0, s]
            r += 1
            if r < total[j + 1] and left[r] == k + 1 and k + 1 < stop and joined[k + 1]:
                o = place[r]
                for s in range(8):
                    pair[1, s] = low[o, s] * diagonal[k + 1, s]
                    diagonal[j, s] -= low[o, s] * pair[1, s]
                subtract_columns(work, below, low, q + 1, o + 1, count, pair)
                r += 1
            else:
                subtract_column(work, below, low, q + 1, q + 1 + count, pair, 0)
        for s in range(8):
            if j < stop and not signs[j] * diagonal[j, s] > least:
                diagonal[j, s] = signs[j] * least
            pair[0, s] = 1.0 / diagonal[j, s] if j < stop else 1.0
        scale_rows(low, work, below, columns[j], columns[j + 1], pair)


@compiled
def forward(columns, below, low, v, stop):
    """`v` without what the columns before `stop` take from it, in place."""
    for j in range(stop):
        subtract_column(v, below, low, columns[j], columns[j + 1], v, j)


@compiled
def backward(columns, below, low, diagonal, v, stop):
    """The rows before `stop` of the solution, those from there on being known, in place."""
    for j in range(stop - 1, -1, -1):
        for s in range(8):
            v[j, s] /= diagonal[j, s]
        subtract_products(v, j, below, low, columns[j], columns[j + 1])


@compiled
def solve(columns, below, low, diagonal, v):
    """`(L D L^T)^-1 v`, in place."""
    size = len(columns) - 1
    forward(columns, below, low, v, size)
    backward(columns, below, low, diagonal, v, size)


@compiled
def forward_all(shape, low, order, right, first, v):
    """As `forward` up to the tail, with one factor for some chunks; rows before `first` and after `right` are zero."""
    last = first + right.shape[1]
    for c in range(len(v)):
        for i in range(len(order)):
            for s in range(8):
                v[c, i, s] = right[c, order[i] - first, s] if first <= order[i] < last else 0.0
        forward(shape.columns, shape.below, low, v[c], shape.tail)


@compiled
def backward_all(shape, low, diagonal, order, v, first, out):
    """As `backward` from the tail, and the unknowns of the solution from `first` on to `out`."""
    last = first + out.shape[1]
    for c in range(len(v)):
        backward(shape.columns, shape.below, low, diagonal, v[c], shape.tail)
        for i in range(len(order)):
            if first <= order[i] < last:
                for s in range(8):
                    out[c, order[i] - first, s] = v[c, i, s]


@compiled
def multiply(rows, columns, diagonal, own, v, w, start, stop):
    """Add the product with the symmetric matrix of one triangle's entries from `start` to `stop`, some on the `diagonal`."""
    add_products(rows, columns, own, v, w, start, stop)
    for e in diagonal:
        if start <= e < stop:
            for s in range(8):
                w[rows[e], s] -= own[e, s] * v[rows[e], s]
