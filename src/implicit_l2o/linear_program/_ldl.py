"""Compiled `L D L^T` of `R W R^T + diag`, for one pattern and many weights; rows that add nothing are left out.

Davis, Direct Methods for Sparse Linear Systems (2006), chapter 4: the up-looking method. The elimination tree is found on
the way, so what a weight of zero removes costs nothing. Where the factor would be full anyway, it is stored so, by rows.
"""

from typing import NamedTuple

import numpy as np

from implicit_l2o._numba import compiled

# A row is dependent on those before it when its pivot is this share of its diagonal: rounding, as rows have norm one.
_DEPENDENT = 1e-11


class Rows(NamedTuple):
    """The rows `R`, of norm one, and how `R W R^T` is assembled and eliminated; `normal_equations` makes it.

    Attributes:
        m: rows; the first `m_eq` are equations, the others inequalities `<=`.
        n: columns.
        m_eq: equations.
        start: `(n + 1,)` where a column's entries begin.
        row: of each entry.
        value: of each entry.
        pair_start: `(n + 1,)` where the pairs of a column's entries begin.
        pair_place: of each pair, its place in the upper triangle; the places of the diagonal follow.
        pair_product: of the two values.
        upper_start: `(m + 1,)` the pattern of the upper triangle of `R R^T`, rows and columns in the order of elimination.
        upper_row: likewise.
        lower_start: `(m + 1,)` where the columns of the factor begin.
        order: `(m,)` the row that is eliminated k-th.
        dense: whether the factor is stored in full; then the upper triangle stands in `(m, m)`, row by row.
    """

    m: int
    n: int
    m_eq: int
    start: np.ndarray
    row: np.ndarray
    value: np.ndarray
    pair_start: np.ndarray
    pair_place: np.ndarray
    pair_product: np.ndarray
    upper_start: np.ndarray
    upper_row: np.ndarray
    lower_start: np.ndarray
    order: np.ndarray
    dense: bool


class Factor(NamedTuple):
    """Room for one factor, overwritten by each `factorise`; `work` are the integers that the method needs by row."""

    upper: np.ndarray
    work: np.ndarray
    row: np.ndarray
    value: np.ndarray
    pivot: np.ndarray


@compiled
def room(rows):
    """An empty factor."""
    size = rows.lower_start[rows.m]
    return Factor(
        np.empty(rows.m * rows.m if rows.dense else rows.upper_start[rows.m]),
        np.zeros((4, rows.m), np.int64),
        np.empty(size, np.int64),
        np.empty(size),
        np.empty(rows.m),
    )


@compiled
def multiply(rows, x, out):
    """`out = R x`."""
    out[:] = 0.0
    for j in range(rows.n):
        v = x[j]
        if v != 0.0:
            for p in range(rows.start[j], rows.start[j + 1]):
                out[rows.row[p]] += rows.value[p] * v


@compiled
def multiply_transposed(rows, y, out):
    """`out = R^T y`."""
    for j in range(rows.n):
        total = 0.0
        for p in range(rows.start[j], rows.start[j + 1]):
            total += rows.value[p] * y[rows.row[p]]
        out[j] = total


@compiled
def weigh(rows, weights, diagonal, factor):
    """Assemble `R W R^T + diag`."""
    upper, place, product = factor.upper, rows.pair_place, rows.pair_product
    upper[:] = 0.0
    for j in range(rows.n):
        w = weights[j]
        if w != 0.0:
            for k in range(rows.pair_start[j], rows.pair_start[j + 1]):
                upper[place[k]] += w * product[k]
    last = rows.pair_start[rows.n]
    for i in range(rows.m):
        upper[place[last + i]] += diagonal[i]


@compiled
def leave_out(rows, kept, factor):
    """Replace the rows and columns of the assembled matrix that are not kept by those of the identity."""
    if rows.dense:
        for k in range(rows.m):
            for i in range(k, rows.m):
                if not kept[k] or not kept[i]:
                    factor.upper[k * rows.m + i] = 1.0 if i == k else 0.0
        return
    for k in range(rows.m):
        whole = kept[rows.order[k]]
        for p in range(rows.upper_start[k], rows.upper_start[k + 1]):
            i = rows.upper_row[p]
            if not whole or not kept[rows.order[i]]:
                factor.upper[p] = 1.0 if i == k else 0.0


@compiled
def factorise_dense(upper, pivot):
    """Eliminate row by row: each row, divided by its pivot, is subtracted from those after it."""
    m = len(pivot)
    for k in range(m):
        pivot[k] = upper[k, k]
    whole = pivot.copy()
    for k in range(m):
        rest = upper[k, k]
        pivot[k] = rest if rest > _DEPENDENT * whole[k] else np.inf
        row = upper[k]
        for i in range(k + 1, m):
            scaled = row[i] / pivot[k]
            if scaled != 0.0:
                subtract(upper[i, i:], scaled, row[i:])


@compiled
def subtract(target, scale, row):
    """`target -= scale row`: from the first entry on, so that it is vectorised."""
    for j in range(len(row)):
        target[j] -= scale * row[j]


@compiled
def solve_dense(upper, pivot, right, out):
    """Two substitutions with the rows of `factorise_dense`."""
    m = len(pivot)
    out[:] = right
    for k in range(m):
        out[k] /= pivot[k]
        subtract(out[k + 1 :], out[k], upper[k, k + 1 :])
    for k in range(m - 1, -1, -1):
        row, v = upper[k], 0.0
        for i in range(k + 1, m):
            v += row[i] * out[i]
        out[k] -= v / pivot[k]


@compiled
def factorise(rows, factor):
    """Factorise what was assembled."""
    if rows.dense:
        factorise_dense(factor.upper.reshape(rows.m, rows.m), factor.pivot)
        return
    parent, flag, count, pattern = factor.work[0], factor.work[1], factor.work[2], factor.work[3]
    upper, lower_row, lower, pivot = factor.upper, factor.row, factor.value, factor.pivot
    lower_start = rows.lower_start
    row = np.zeros(rows.m)
    for k in range(rows.m):
        parent[k], flag[k], count[k] = -1, k, 0
        top = rows.m
        for p in range(rows.upper_start[k], rows.upper_start[k + 1]):
            value = upper[p]
            if value == 0.0:
                continue
            i = rows.upper_row[p]
            row[i] += value
            length = 0
            while flag[i] != k:
                pattern[length] = i
                length += 1
                flag[i] = k
                if parent[i] == -1:
                    parent[i] = k
                i = parent[i]
            while length > 0:
                top -= 1
                length -= 1
                pattern[top] = pattern[length]
        whole = row[k]
        rest = whole
        row[k] = 0.0
        for q in range(top, rows.m):
            i = pattern[q]
            entry = row[i]
            row[i] = 0.0
            end = lower_start[i] + count[i]
            for p in range(lower_start[i], end):
                row[lower_row[p]] -= lower[p] * entry
            scaled = entry / pivot[i]
            rest -= scaled * entry
            lower_row[end], lower[end] = k, scaled
            count[i] += 1
        # An infinite pivot leaves the row out: everything that is divided by it vanishes.
        pivot[k] = rest if rest > _DEPENDENT * whole else np.inf


@compiled
def solve(rows, factor, right, out):
    """`out` becomes the solution for a right-hand side, zero on the rows that were left out."""
    if rows.dense:
        solve_dense(factor.upper.reshape(rows.m, rows.m), factor.pivot, right, out)
        return
    count, lower_row, lower, start = factor.work[2], factor.row, factor.value, rows.lower_start
    x = np.empty(rows.m)
    for i in range(rows.m):
        x[i] = right[rows.order[i]]
    for i in range(rows.m):
        v = x[i]
        if v != 0.0:
            for p in range(start[i], start[i] + count[i]):
                x[lower_row[p]] -= lower[p] * v
    for i in range(rows.m):
        x[i] /= factor.pivot[i]
    for i in range(rows.m - 1, -1, -1):
        v = x[i]
        for p in range(start[i], start[i] + count[i]):
            v -= lower[p] * x[lower_row[p]]
        x[i] = v
    for i in range(rows.m):
        out[rows.order[i]] = x[i]
