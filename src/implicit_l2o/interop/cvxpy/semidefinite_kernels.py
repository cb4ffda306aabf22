"""Semidefinite cones in the interior-point method: Nesterov and Todd's scaling, corrections and step lengths, compiled.

With `S = L L^T`, `Z = K K^T` and `K^T L = U diag(sigma) V^T`, the scaling is `R = L V diag(sigma)^-1/2`: both `R^-1 S R^-T`
and `R^T Z R` are `diag(sigma)`, and `E X = W X W` with `W = R R^T`. Matrices are rows of `(order^2, 8)` arrays, entries of
cones their upper triangles by columns, those off the diagonal times the root of two.
Source: L. Vandenberghe, The CVXOPT linear and quadratic cone program solvers (2010).
"""

import math
from typing import NamedTuple

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy.matrix_vectors import add_scaled, dot, rotate
from implicit_l2o.interop.cvxpy.room_kernels import room_for

_SWEEPS = 12
_ORTHOGONAL = 1e-14  # cosine of the angle of two rows
_HALVINGS = 7  # of a step that is too long


class Matrices(NamedTuple):
    """Of one chunk's cones, one after the other: `R^T`, `R^-1`, `W`, `sigma`, scaled directions, and room for one cone."""

    root: np.ndarray
    inverse: np.ndarray
    square: np.ndarray
    sigma: np.ndarray
    ds: np.ndarray
    dz: np.ndarray
    room: np.ndarray


@compiled
def matrices_of(t):
    """Room for one chunk."""
    total, most = 0, 1
    for k in range(len(t.matrices)):
        order = t.matrices[k, 1]
        total, most = total + order * order, max(most, order * order)
    return Matrices(
        *(room_for(total), room_for(total), room_for(total), room_for(total), room_for(total), room_for(total)),
        room_for(5 * most).reshape(5, most, 8),
    )


@compiled
def to_matrix(x, row, order, out):
    """The symmetric matrix of a triangle."""
    half = math.sqrt(0.5)
    for j in range(order):
        for i in range(j + 1):
            by = 1.0 if i == j else half
            for s in range(8):
                out[i * order + j, s] = out[j * order + i, s] = by * x[row, s]
            row += 1


@compiled
def add_triangle(x, order, out, row):
    """Add the triangle of a symmetric matrix."""
    double = math.sqrt(2.0)
    for j in range(order):
        for i in range(j + 1):
            by = 1.0 if i == j else double
            for s in range(8):
                out[row, s] += by * x[j * order + i, s]
            row += 1


@compiled
def cholesky(x, order, room):
    """`x` becomes its lower factor, with zeros above; NaN where it is not positive definite."""
    for j in range(order):
        for i in range(j, order):
            dot(room, 0, x, i * order, x, j * order, j)
            for s in range(8):
                x[i * order + j, s] -= room[0, s]
        for s in range(8):
            room[1, s] = 1.0 / math.sqrt(x[j * order + j, s]) if x[j * order + j, s] > 0.0 else np.nan
        for i in range(j, order):
            for s in range(8):
                x[i * order + j, s] *= room[1, s]
        for i in range(j):
            for s in range(8):
                x[i * order + j, s] = 0.0


@compiled
def multiply(x, y, order, out):
    """`out = x y`."""
    out[: order * order] = 0.0
    for i in range(order):
        for k in range(order):
            add_scaled(out, i * order, x, i * order + k, y, k * order, order)


@compiled
def congruence(by, x, order, room, out, start):
    """`by x by^T` from the row `start` of `out`."""
    multiply(by, x, order, room)
    for i in range(order):
        for j in range(order):
            dot(out, start + i * order + j, room, i * order, by, j * order, order)


@compiled
def orthogonalise(x, v, order, room):
    """Turn the rows of `x`, and those of `v` with them, until those of `x` are orthogonal: Hestenes' method."""
    for _ in range(_SWEEPS):
        done = True
        for i in range(order - 1):
            for j in range(i + 1, order):
                p, q = i * order, j * order
                dot(room, 0, x, p, x, p, order)
                dot(room, 1, x, q, x, q, order)
                dot(room, 2, x, p, x, q, order)
                some = False
                for s in range(8):
                    a, b, c = room[0, s], room[1, s], room[2, s]
                    room[3, s], room[4, s] = 1.0, 0.0
                    if c * c > _ORTHOGONAL * _ORTHOGONAL * a * b:
                        some = True
                        cotangent = (b - a) / (2.0 * c)
                        tangent = 1.0 / (abs(cotangent) + math.sqrt(1.0 + cotangent * cotangent))
                        tangent = tangent if cotangent >= 0.0 else -tangent
                        room[3, s] = 1.0 / math.sqrt(1.0 + tangent * tangent)
                        room[4, s] = tangent * room[3, s]
                if some:
                    done = False
                    rotate(x, p, q, order, room[3:5])
                    rotate(v, p, q, order, room[3:5])
        if done:
            return


@compiled
def scale(t, values, s_, z, mats):
    """The entries of E with their sign, and the scaling of each cone."""
    for k in range(len(t.matrices)):
        row, order, e, start = t.matrices[k]
        size = order * order
        L, K, H, V, room = mats.room[0], mats.room[1], mats.room[2], mats.room[3], mats.room[4]
        if order < 3:
            room = np.zeros((5, 8))
        to_matrix(s_, row, order, L)
        to_matrix(z, row, order, K)
        cholesky(L, order, room)
        cholesky(K, order, room)
        H[:size] = 0.0
        V[:size] = 0.0
        for i in range(order):
            for s in range(8):
                V[i * order + i, s] = 1.0
            for j in range(i + 1):
                add_scaled(H, j * order, L, i * order + j, K, i * order, i + 1)
        orthogonalise(H, V, order, room)
        root, inverse = mats.root[start : start + size], mats.inverse[start : start + size]
        for i in range(order):
            dot(room, 0, H, i * order, H, i * order, order)
            for s in range(8):
                mats.sigma[start + i, s] = math.sqrt(room[0, s])
            for j in range(order):
                dot(root, i * order + j, V, i * order, L, j * order, j + 1)
                dot(inverse, i * order + j, H, i * order, K, j * order, j + 1)
                for s in range(8):
                    by = mats.sigma[start + i, s]
                    root[i * order + j, s] /= math.sqrt(by)
                    inverse[i * order + j, s] /= by * math.sqrt(by)
        W = mats.square[start : start + size]
        W[:] = 0.0
        for i in range(order):
            for j in range(order):
                add_scaled(W, j * order, root, i * order + j, root, i * order, order)
        kronecker(W, order, values, e)


@compiled
def kronecker(W, order, values, e):
    """`-E` of `E X = W X W`, the lower triangle by rows."""
    size, factors = order * (order + 1) // 2, room_for(2)
    values[e : e + size * (size + 1) // 2] = 0.0
    row = e
    for j in range(order):
        for i in range(j + 1):
            at = row
            for k in range(j + 1):
                count = k + 1 if k < j else i + 1
                for s in range(8):
                    factors[0, s], factors[1, s] = -W[i * order + k, s], -W[j * order + k, s]
                add_scaled(values, at, factors, 0, W, j * order, count)
                add_scaled(values, at, factors, 1, W, i * order, count)
                at += count
            row = at
    scale_diagonals(values, e, order)


@compiled
def scale_diagonals(values, e, order):
    """Rows and columns of diagonal entries times the root of a half."""
    half = math.sqrt(0.5)
    row = e
    for j in range(order):
        for i in range(j + 1):
            if i == j:
                for at in range(row, row + j * (j + 1) // 2 + i + 1):
                    for s in range(8):
                        values[at, s] *= half
            for k in range(j + 1 if i == j else j):
                at = row + k * (k + 3) // 2
                for s in range(8):
                    values[at, s] *= half
            row += j * (j + 1) // 2 + i + 1


@compiled
def multiply_blocks(t, mats, x, out):
    """Add the product with `-E`: four times the order in multiplications for each entry of a matrix, where E has more."""
    for k in range(len(t.matrices)):
        row, order, _, start = t.matrices[k]
        size = order * order
        to_matrix(x, t.n + row, order, mats.room[0])
        for i in range(size):
            for s in range(8):
                mats.room[0, i, s] = -mats.room[0, i, s]
        congruence(mats.square[start : start + size], mats.room[0], order, mats.room[1], mats.room[2], 0)
        add_triangle(mats.room[2], order, out, t.n + row)


@compiled
def directions(t, ds, dz, mats):
    """`R^-1 dS R^-T` and `R^T dZ R`."""
    for k in range(len(t.matrices)):
        row, order, _, start = t.matrices[k]
        size = order * order
        to_matrix(ds, row, order, mats.room[0])
        congruence(mats.inverse[start : start + size], mats.room[0], order, mats.room[1], mats.ds, start)
        to_matrix(dz, row, order, mats.room[0])
        congruence(mats.root[start : start + size], mats.room[0], order, mats.room[1], mats.dz, start)


@compiled
def correct(t, mats, target, fixed):
    """Add `R U R^T`, where `U` and `diag(sigma)` have the symmetric product `dS o dZ - target I` of scaled directions."""
    for k in range(len(t.matrices)):
        row, order, _, start = t.matrices[k]
        size = order * order
        product, U = mats.room[0], mats.room[1]
        multiply(mats.ds[start : start + size], mats.dz[start : start + size], order, product)
        for i in range(order):
            for j in range(order):
                for s in range(8):
                    whole = product[i * order + j, s] + product[j * order + i, s]
                    whole -= 2.0 * target[s] if i == j else 0.0
                    U[i * order + j, s] = whole / (mats.sigma[start + i, s] + mats.sigma[start + j, s])
        root = mats.root[start : start + size]
        multiply(U, root, order, product)
        U[:size] = 0.0
        for i in range(order):
            for j in range(order):
                add_scaled(U, j * order, root, i * order + j, product, i * order, order)
        add_triangle(U, order, fixed, row)


@compiled
def longest(t, mats, out):
    """Shorten the steps `out` until `diag(sigma)` and the scaled directions stay in the cones."""
    low, high, inside = np.empty(8), np.empty(8), np.empty(8, np.bool_)
    trial = mats.room[0]
    room = np.zeros((2, 8))
    for k in range(len(t.matrices)):
        _, order, _, start = t.matrices[k]
        size = order * order
        for s in range(8):
            low[s], high[s] = 0.0, out[s]
        for halving in range(_HALVINGS + 1):
            for s in range(8):
                room[0, s] = high[s] if halving == 0 else 0.5 * (low[s] + high[s])
                inside[s] = True
            at = room[0].copy()
            for direction in (mats.ds, mats.dz):
                for i in range(size):
                    for s in range(8):
                        trial[i, s] = at[s] * direction[start + i, s]
                for i in range(order):
                    for s in range(8):
                        trial[i * order + i, s] += mats.sigma[start + i, s]
                cholesky(trial, order, room)
                for s in range(8):
                    inside[s] = inside[s] and trial[size - 1, s] > 0.0
            every = True
            for s in range(8):
                if inside[s]:
                    low[s] = at[s]
                else:
                    high[s], every = at[s], False
            if halving == 0 and every:
                break
        for s in range(8):
            out[s] = low[s]
