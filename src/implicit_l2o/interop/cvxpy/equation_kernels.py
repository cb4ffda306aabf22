"""Compiled products with and solutions of the equations `[[P, A^T], [A, -E]]` of eight samples, which have one pattern."""

from typing import NamedTuple

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy.ldl_kernels import Shape, factor, multiply, solve
from implicit_l2o.interop.cvxpy.room_kernels import room_for
from implicit_l2o.interop.cvxpy.semidefinite_kernels import multiply_blocks

_REFINED = 1e-9  # residual relative to the right-hand side
_REFINEMENTS = 2
_LEAST = 1e-13  # pivot


class Structure(NamedTuple):
    """What the samples have in common: sizes, the pattern of the equations and where the entries of E start.

    Rows up to `zero` are equations, up to `first` inequalities. `seconds` has a row, a size, the place of the first entry
    and the first of two more unknowns for each second-order cone (-1 where its block is dense), `matrices` a row, an order,
    the place of the first entry and of the first square's entry for each semidefinite cone, `triples` a row and the place of
    the first entry for each exponential or power cone, `alphas` the exponents, zero for exponential cones. `diagonal` are
    the entries of P and of the blocks of E that stand there.
    """

    n: int
    m: int
    size: int
    zero: int
    first: int
    degree: int
    linear: int
    curved: int
    seconds: np.ndarray
    matrices: np.ndarray
    triples: np.ndarray
    alphas: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    diagonal: np.ndarray
    places: np.ndarray
    order: np.ndarray
    signs: np.ndarray
    shape: Shape


class Work(NamedTuple):
    """Room for one chunk."""

    low: np.ndarray
    diagonal: np.ndarray
    columns: np.ndarray
    inner: np.ndarray
    product: np.ndarray


@compiled
def room(t, low, diagonal):
    """Room for one chunk."""
    size = t.size
    return Work(low, diagonal, room_for(size), room_for(size), room_for(size))


@compiled
def multiply_data(t, values, x, out):
    """Add the product with P, A and its transpose to `out`."""
    multiply(t.rows, t.columns, t.diagonal, values, x, out, 0, t.linear)


@compiled
def multiply_corner(t, values, x, mats, out):
    """Add the product with `-E` to `out`."""
    for i in range(t.first):
        for s in range(8):
            out[t.n + i, s] += values[t.linear + i, s] * x[t.n + i, s]
    start = t.curved
    if len(t.matrices):
        multiply(t.rows, t.columns, t.diagonal, values, x, out, start, t.matrices[0, 2])
        multiply_blocks(t, mats, x, out)
        size = t.matrices[-1, 1] * (t.matrices[-1, 1] + 1) // 2
        start = t.matrices[-1, 2] + size * (size + 1) // 2
    multiply(t.rows, t.columns, t.diagonal, values, x, out, start, len(t.rows))


@compiled
def multiply_all(t, values, x, mats, work):
    """`work.product`: that with the whole matrix."""
    work.product[:] = 0.0
    multiply_data(t, values, x, work.product)
    multiply_corner(t, values, x, mats, work.product)


@compiled
def factor_one(t, values, shift, work):
    """Factor the regularised equations."""
    factor(t.shape, t.places, values, shift, t.signs, _LEAST, work.low, work.diagonal, work.columns, t.size)


@compiled
def apply_inverse(t, right, out, work, add):
    """`out` or what is added to it: the solution of the regularised equations."""
    for i in range(t.size):
        o = t.order[i]
        for s in range(8):
            work.inner[i, s] = right[o, s]
    solve(t.shape.columns, t.shape.below, work.low, work.diagonal, work.inner)
    for i in range(t.size):
        o = t.order[i]
        for s in range(8):
            out[o, s] = work.inner[i, s] + (out[o, s] if add else 0.0)


@compiled
def refined(t, values, right, mats, out, work):
    """The solution of the equations, of which the factors are those of regularised ones."""
    apply_inverse(t, right, out, work, False)
    for _ in range(_REFINEMENTS):
        multiply_all(t, values, out, mats, work)
        enough = True
        for s in range(8):
            large, rest = 0.0, 0.0
            for i in range(t.size):
                gap = right[i, s] - work.product[i, s]
                work.product[i, s] = gap
                large, rest = max(large, abs(right[i, s])), max(rest, abs(gap))
            enough = enough and not rest > _REFINED * large
        if enough:
            return
        apply_inverse(t, work.product, out, work, True)


@compiled
def factor_all(t, values, shift, low, diagonal, which):
    """Factor the equations of some chunks."""
    columns = room_for(t.size)
    for c in which:
        factor(t.shape, t.places, values[c], shift, t.signs, _LEAST, low[c], diagonal[c], columns, t.size)


@compiled
def solve_all(t, low, diagonal, right, out, which):
    """Solve the regularised equations of some chunks."""
    for c in which:
        apply_inverse(t, right[c], out[c], room(t, low[c], diagonal[c]), False)


@compiled
def products(t, values, x, out, which):
    """`(P x + A^T z, A x)` of `(x, z)` for some chunks."""
    for c in which:
        out[c] = 0.0
        multiply_data(t, values[c], x[c], out[c])
