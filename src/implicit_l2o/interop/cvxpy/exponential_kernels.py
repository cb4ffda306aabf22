"""The exponential cone `y exp(x / y) <= z` and the barrier of its dual, compiled.

Source: A. Serrano, Algorithms for unsymmetric cone optimization and an implementation for problems with the exponential
cone, PhD thesis, Stanford (2015).
"""

import math

from implicit_l2o._numba import compiled

_SHORTER = 0.8  # where a cone would be left

# The point that is its own dual: minus the gradient of the barrier there is the point itself.
central = (-1.051383945322714, 1.258967884768947, 0.556409619469370)


@compiled
def in_primal(x, y, z):
    """Whether a point is inside of the cone."""
    return y > 0.0 and z > 0.0 and y * math.log(z / y) - x > 0.0


@compiled
def in_dual(u, v, w):
    """Whether a point is inside of the dual cone."""
    return u < 0.0 and w > 0.0 and v - u - u * math.log(-w / u) > 0.0


@compiled
def barrier(u, v, w):
    """Gradient and Hessian (its lower triangle by rows) of `-log(v - u - u log(-w / u)) - log(-u) - log(w)`."""
    bend = math.log(-w / u)
    r = v - u - u * bend
    slope = u / w
    gradient = (bend / r - 1.0 / u, -1.0 / r, slope / r - 1.0 / w)
    square = 1.0 / (r * r)
    hessian = (
        bend * bend * square - 1.0 / (u * r) + 1.0 / (u * u),
        -bend * square,
        square,
        bend * slope * square + 1.0 / (w * r),
        -slope * square,
        slope * slope * square - slope / (w * r) + 1.0 / (w * w),
    )
    return gradient, hessian


@compiled
def scale(t, values, z, mu):
    """The entries of E with their sign."""
    for k in range(len(t.triples)):
        r, e = t.triples[k]
        for s in range(8):
            _, H = barrier(z[r, s], z[r + 1, s], z[r + 2, s])
            for a in range(6):
                values[e + a, s] = -mu[s] * H[a]


@compiled
def correct(t, z, target, fixed):
    """Add the gradient of the barrier, `target` times."""
    for k in range(len(t.triples)):
        r = t.triples[k, 0]
        for s in range(8):
            g, _ = barrier(z[r, s], z[r + 1, s], z[r + 2, s])
            for a in range(3):
                fixed[r + a, s] += target[s] * g[a]


@compiled
def longest(t, s_, z, ds, dz, out):
    """Shorten the steps `out` until they stay in the cones."""
    for k in range(len(t.triples)):
        r = t.triples[k, 0]
        for s in range(8):
            for _ in range(60):
                a = out[s]
                if in_primal(
                    s_[r, s] + a * ds[r, s], s_[r + 1, s] + a * ds[r + 1, s], s_[r + 2, s] + a * ds[r + 2, s]
                ) and in_dual(z[r, s] + a * dz[r, s], z[r + 1, s] + a * dz[r + 1, s], z[r + 2, s] + a * dz[r + 2, s]):
                    break
                out[s] *= _SHORTER
