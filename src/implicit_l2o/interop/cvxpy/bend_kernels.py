"""The blocks of the equations that belong to the derivatives of projections onto semidefinite cones, compiled."""

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy.matrix_vectors import add_scaled
from implicit_l2o.interop.cvxpy.room_kernels import room_for
from implicit_l2o.interop.cvxpy.semidefinite_kernels import scale_diagonals


@compiled
def add_products(A, B, order, out):
    """Add `X -> -(A X B + B X A)` to the lower triangle `out` by rows; rows of diagonal entries are still to be scaled."""
    factors = room_for(4)
    row = 0
    for j in range(order):
        for i in range(j + 1):
            at = row
            for k in range(j + 1):
                length = k + 1 if k < j else i + 1
                for s in range(8):
                    factors[0, s], factors[1, s] = -A[i * order + k, s], -A[j * order + k, s]
                    factors[2, s], factors[3, s] = -B[i * order + k, s], -B[j * order + k, s]
                add_scaled(out, at, factors, 0, B, j * order, length)
                add_scaled(out, at, factors, 1, B, i * order, length)
                add_scaled(out, at, factors, 2, A, j * order, length)
                add_scaled(out, at, factors, 3, A, i * order, length)
                at += length
            row = at


@compiled
def stretched_all(up, down, inside, within, base, out):
    """`-E` of every chunk, where `E X = up X down + down X up + within inside X inside + base X`."""
    half = 0.5 * within
    for c in range(len(up)):
        order = int(len(up[c]) ** 0.5 + 0.5)
        out[c] = 0.0
        add_products(up[c], down[c], order, out[c])
        add_products(inside[c], half * inside[c], order, out[c])
        scale_diagonals(out[c], 0, order)
        for i in range(order * (order + 1) // 2):
            for s in range(8):
                out[c, i * (i + 3) // 2, s] -= base
