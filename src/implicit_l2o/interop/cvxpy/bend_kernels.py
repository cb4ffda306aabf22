"""The blocks of the equations that belong to the derivatives of projections onto semidefinite cones, compiled."""

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy.matrix_vectors import add_scaled
from implicit_l2o.interop.cvxpy.room_kernels import room_for
from implicit_l2o.interop.cvxpy.semidefinite_kernels import scale_diagonals


@compiled
def stretched(V, weights, count, order, out):
    """Add the sum of `-weights[p, q] u u^T`, `u = v_p v_q^T + v_q v_p^T` as a triangle, to the lower triangle `out` by rows.

    Rows of `V` are vectors, of which the first `count` are those `p`.
    """
    F, factors = room_for(order * order), room_for(4)
    for p in range(count):
        # F = sum_q -weights[p, q] v_q v_q^T.
        F[:] = 0.0
        for q in range(order):
            for j in range(order):
                for s in range(8):
                    factors[0, s] = -weights[p * order + q, s] * V[q * order + j, s]
                add_scaled(F, j * order, factors, 0, V, q * order, order)
        row, v = 0, p * order
        for j in range(order):
            for i in range(j + 1):
                at = row
                for k in range(j + 1):
                    length = k + 1 if k < j else i + 1
                    for s in range(8):
                        a, b, c = V[v + i, s], V[v + j, s], V[v + k, s]
                        factors[1, s], factors[2, s] = a * c, b * c
                        factors[3, s] = a * F[j * order + k, s] + b * F[i * order + k, s]
                    add_scaled(out, at, factors, 1, F, j * order, length)
                    add_scaled(out, at, factors, 2, F, i * order, length)
                    add_scaled(out, at, factors, 3, V, v, length)
                    at += length
                row = at
    scale_diagonals(out, 0, order)


@compiled
def stretched_all(V, weights, count, order, base, out):
    """The same for every chunk, and `-base` on the diagonal."""
    size = order * (order + 1) // 2
    for c in range(len(V)):
        out[c] = 0.0
        stretched(V[c], weights[c], count, order, out[c])
        for i in range(size):
            for s in range(8):
                out[c, i * (i + 3) // 2, s] -= base
