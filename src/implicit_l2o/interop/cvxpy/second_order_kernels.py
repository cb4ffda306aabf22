"""Second-order cones in the interior-point method: Nesterov and Todd's scaling, corrections and step lengths, compiled.

With `J = diag(1, -1, ..., -1)` and the scaling point `w`, `w.Jw = 1`, `E = W^2 = eta^2 (2 w w^T - J)`.
Source: L. Vandenberghe, The CVXOPT linear and quadratic cone program solvers (2010); as a diagonal and two more unknowns:
A. Domahidi, E. Chu and S. Boyd, ECOS: an SOCP solver for embedded systems, ECC (2013).
"""

import math

from implicit_l2o._numba import compiled


@compiled
def tail(a, b, row, size, s):
    """The inner product of two vectors but for their first entries."""
    total = 0.0
    for i in range(row + 1, row + size):
        total += a[i, s] * b[i, s]
    return total


@compiled
def determinant(a, row, size, s):
    """`a.Ja`, positive inside of the cone."""
    length = math.sqrt(tail(a, a, row, size, s))
    return (a[row, s] - length) * (a[row, s] + length)


@compiled
def apply(w, eta, x, row, size, s, out):
    """`W x`, or with `1 / eta` and `J w` its inverse."""
    inner = tail(w, x, row, size, s)
    rest = x[row, s] + inner / (1.0 + w[row, s])
    out[row, s] = eta * (w[row, s] * x[row, s] + inner)
    for i in range(row + 1, row + size):
        out[i, s] = eta * (x[i, s] + rest * w[i, s])


@compiled
def scale(t, values, s_, z, eta, w, scaled):
    """The entries of E with their sign; `eta` of each cone, the scaling points and `scaled = W z = W^-1 s` in their rows."""
    for k in range(len(t.seconds)):
        row, size, e, extra = t.seconds[k]
        for s in range(8):
            of_s, of_z = math.sqrt(determinant(s_, row, size, s)), math.sqrt(determinant(z, row, size, s))
            inner = s_[row, s] * z[row, s] + tail(s_, z, row, size, s)
            double = math.sqrt(2.0 + 2.0 * inner / (of_s * of_z))
            for i in range(row + 1, row + size):
                w[i, s] = (s_[i, s] / of_s - z[i, s] / of_z) / double
            w[row, s] = math.sqrt(1.0 + tail(w, w, row, size, s))
            eta[k, s] = math.sqrt(of_s / of_z)
            apply(w, eta[k, s], z, row, size, s, scaled)
            if extra < 0:
                _dense(values, w, eta[k, s] ** 2, row, size, e, s)
            else:
                _slim(values, w, eta[k, s], row, size, e, s)


@compiled
def _dense(values, w, square, row, size, e, s):
    """`-E` by the rows of its lower triangle."""
    for i in range(size):
        for j in range(i + 1):
            values[e, s] = -2.0 * square * w[row + i, s] * w[row + j, s]
            if i == j:
                values[e, s] += square if i == 0 else -square
            e += 1


@compiled
def _slim(values, w, eta, row, size, e, s):
    """`-E = -D + v v^T - u u^T`: the diagonal, `u`, `v` and the pivots of the two more unknowns.

    `D - v v^T` is positive definite, so that the equations are quasi-definite.
    """
    square = 2.0 * w[row, s] ** 2 - 1.0
    first = 0.5 / square
    of_u = math.sqrt(square - first)
    of_v = math.sqrt((4.0 + 2.0 / square) / (2.0 * square - 1.0 / square))
    for i in range(size):
        values[e + i, s] = -eta * eta * (first if i == 0 else 1.0)
        values[e + size + i, s] = eta * (of_u if i == 0 else 2.0 * w[row, s] / of_u * w[row + i, s])
        values[e + 2 * size + i, s] = eta * (0.0 if i == 0 else of_v * w[row + i, s])
    values[e + 3 * size, s] = 1.0
    values[e + 3 * size + 1, s] = -1.0


@compiled
def correct(t, eta, w, scaled, ds, dz, target, fixed):
    """Add `W u`, where `l o u = (W^-1 ds) o (W dz) - target e` with Jordan's product and the scaled point `l`."""
    for k in range(len(t.seconds)):
        row, size, _, _ = t.seconds[k]
        for s in range(8):
            by, c, l0 = eta[k, s], w[row, s], scaled[row, s]
            ahead, behind = tail(w, dz, row, size, s), -tail(w, ds, row, size, s)
            of_z, of_s = dz[row, s] + ahead / (1.0 + c), ds[row, s] + behind / (1.0 + c)
            z0, s0 = by * (c * dz[row, s] + ahead), (c * ds[row, s] + behind) / by
            # Both passes make the tails of W dz and W^-1 ds anew, which takes less than to keep them.
            inner, along = s0 * z0 - target[s], 0.0
            for i in range(row + 1, row + size):
                zi, si = by * (dz[i, s] + of_z * w[i, s]), (ds[i, s] - of_s * w[i, s]) / by
                inner += zi * si
                along += scaled[i, s] * (s0 * zi + z0 * si)
            o0 = (l0 * inner - along) / determinant(scaled, row, size, s)
            ahead = 0.0
            for i in range(row + 1, row + size):
                zi, si = by * (dz[i, s] + of_z * w[i, s]), (ds[i, s] - of_s * w[i, s]) / by
                ahead += w[i, s] * (s0 * zi + z0 * si - o0 * scaled[i, s]) / l0
            rest = o0 + ahead / (1.0 + c)
            for i in range(row + 1, row + size):
                zi, si = by * (dz[i, s] + of_z * w[i, s]), (ds[i, s] - of_s * w[i, s]) / by
                fixed[i, s] += by * ((s0 * zi + z0 * si - o0 * scaled[i, s]) / l0 + rest * w[i, s])
            fixed[row, s] += by * (c * o0 + ahead)


@compiled
def longest(x, dx, row, size, s, most):
    """The least of `most` and the step at which `x + step dx` leaves the cone."""
    a, c = determinant(dx, row, size, s), max(0.0, determinant(x, row, size, s))
    b = x[row, s] * dx[row, s] - tail(x, dx, row, size, s)
    if a >= 0.0 and b >= 0.0:
        return most
    root = math.sqrt(max(0.0, b * b - a * c))  # of a number that is not negative but for rounding
    root = -b - root if b >= 0.0 else -b + root
    if root == 0.0:
        return 0.0
    for step in (c / root, root / a):
        if step >= 0.0:
            most = min(most, step)
    return most
