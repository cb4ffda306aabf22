"""The exponential cone `y exp(x / y) <= z` and the barrier of its dual, compiled.

Source: A. Serrano, Algorithms for unsymmetric cone optimization and an implementation for problems with the exponential
cone, PhD thesis, Stanford (2015).
"""

import math

from implicit_l2o._numba import compiled

# The point that is its own dual: minus the gradient of the barrier there is the point itself.
central = (-1.051383945322714, 0.556409619469370, 1.258967884768947)


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
