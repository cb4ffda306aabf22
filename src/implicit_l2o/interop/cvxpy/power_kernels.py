"""The power cone `x^alpha y^(1 - alpha) >= |z|` and the barrier of its dual, compiled.

Source: R. Chares, Cones and interior-point algorithms for structured convex optimization involving powers and
exponentials, PhD thesis, Universite catholique de Louvain (2009).
"""

import math

from implicit_l2o._numba import compiled


@compiled
def central(alpha):
    """The point that is its own dual: minus the gradient of the barrier there is the point itself."""
    return math.sqrt(1.0 + alpha), math.sqrt(2.0 - alpha), 0.0


@compiled
def in_primal(x, y, z, alpha):
    """Whether a point is inside of the cone."""
    return x > 0.0 and y > 0.0 and x**alpha * y ** (1.0 - alpha) > abs(z)


@compiled
def in_dual(u, v, w, alpha):
    """Whether a point is inside of the dual cone."""
    return in_primal(u / alpha, v / (1.0 - alpha), w, alpha)


@compiled
def barrier(u, v, w, alpha):
    """Gradient and Hessian (its lower triangle by rows) of `-log(f - w^2) - (1 - alpha) log(u) - alpha log(v)`.

    Here `f = (u / alpha)^(2 alpha) (v / (1 - alpha))^(2 - 2 alpha)`.
    """
    a, b = 2.0 * alpha, 2.0 - 2.0 * alpha
    mean = (u / alpha) ** alpha * (v / (1.0 - alpha)) ** (1.0 - alpha)
    rest = (mean - w) * (mean + w)
    # In units of what is left: the slopes of f, and f itself.
    f = mean * mean / rest
    of_u, of_v, of_w = a * f / u, b * f / v, -2.0 * w / rest
    gradient = (-of_u - (1.0 - alpha) / u, -of_v - alpha / v, -of_w)
    hessian = (
        of_u * of_u - a * (a - 1.0) * f / (u * u) + (1.0 - alpha) / (u * u),
        of_u * of_v - a * b * f / (u * v),
        of_v * of_v - b * (b - 1.0) * f / (v * v) + alpha / (v * v),
        of_u * of_w,
        of_v * of_w,
        of_w * of_w + 2.0 / rest,
    )
    return gradient, hessian
