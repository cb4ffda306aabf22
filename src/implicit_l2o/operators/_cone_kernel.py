"""The scalar equations of curved cones, compiled: many cones cost one call instead of many small tensor operations.

`_bracket.find_root` does the same without numba. It is imported where it is used, for numba is in an extra.
"""

import math

import numpy as np

from implicit_l2o._numba import compiled

_MOST = 200
_LARGEST = 300.0  # of |ratio|, as in `exponential_cone`
_MODERATE = 20.0  # ... up to which the entries of derivatives are about exact
_INSIDE, _POLAR, _FACE, _CURVED, _NOTHING = 0, 1, 2, 3, 4


@compiled
def _root(r, s, t, a, b, x):
    """The root of the equation of `exponential_cone` between `a` and `b`, from `x`."""
    before = b - a
    for _ in range(_MOST):
        size, slope = x * (x - 1) + 1, 2 * x - 1
        primal, dual = ((x - 1) * r + s) / size, (r - x * s) / size
        up, down = math.exp(x), math.exp(-x)
        value = up * primal - down * dual - t
        if value < 0:
            a = x
        elif value > 0:
            b = x
        else:
            break
        derivative = up * (primal + (r - slope * primal) / size) + down * (dual + (s + slope * dual) / size)
        following = x - value / derivative
        if not (a < following < b and abs(following - x) <= before / 2):
            following = (a + b) / 2
            before = b - a
        else:
            before = abs(following - x)
        moved = abs(following - x)
        x = following
        if not moved > 1e-15 * max(abs(x), 1e-8):
            break
    return x


@compiled
def exponential_ratios(r, s, t, low, high, start, out):
    """The roots `out` of the equation of `exponential_cone`, between `low` and `high`."""
    for k in range(len(r)):
        out[k] = _root(r[k], s[k], t[k], low[k], high[k], start[k])


@compiled
def _region(r, s, t):
    """Where a point is, of largest entry 1; the cases of `ExponentialCone.project`."""
    if not (math.isfinite(r) and math.isfinite(s) and math.isfinite(t)):
        return _NOTHING
    if (s > 0 and t > 0 and math.log(s) + r / s <= math.log(t)) or (s == 0 and r <= 0 and t >= 0):
        return _INSIDE
    if (r > 0 and t < 0 and math.log(r) + s / r <= 1 + math.log(-t)) or (r == 0 and s <= 0 and t <= 0):
        return _POLAR
    return _FACE if r <= 0 and s <= 0 else _CURVED


@compiled
def _curved(r, s, t):
    """The ratio of a point whose nearest one lies on the curved part of the boundary, and the weights of its two rays."""
    low, high = -_LARGEST, _LARGEST
    if r > 0:
        low = max(low, 1 - s / r)
    if r < 0:
        high = min(high, 1 - s / r)
    if s > 0:
        high = min(high, r / s)
    if s < 0:
        low = max(low, r / s)
    low, high = min(max(low, -_LARGEST), _LARGEST), min(max(high, -_LARGEST), _LARGEST)
    start = low if abs(low) < abs(high) else high
    if low > -_LARGEST and high < _LARGEST:
        start = (low + high) / 2
    x = _root(r, s, t, low, high, start)
    size = x * (x - 1) + 1
    return x, ((x - 1) * r + s) / size, (r - x * s) / size


@compiled
def exponential_projections(points, out):
    """The nearest points of the exponential cone, a row each; NaN for rows that are not finite."""
    for k in range(len(points)):
        unit = max(abs(points[k, 0]), abs(points[k, 1]), abs(points[k, 2]))
        by = unit if unit > 0 else 1.0
        r, s, t = points[k, 0] / by, points[k, 1] / by, points[k, 2] / by
        where = _region(r, s, t)
        if where == _NOTHING:
            out[k] = np.nan
        elif where == _INSIDE:
            out[k] = points[k]
        elif where == _POLAR:
            out[k] = 0.0
        elif where == _FACE:
            out[k, 0], out[k, 1], out[k, 2] = points[k, 0], 0.0, max(points[k, 2], 0.0)
        else:
            x, primal, dual = _curved(r, s, t)
            if x > 0:  # exp(x) would magnify the rounding of the weight: the third entry comes first
                height = t + math.exp(-x) * dual
                primal = height * math.exp(-x)
            else:
                height = primal * math.exp(x)
            out[k, 0], out[k, 1], out[k, 2] = unit * primal * x, unit * primal, unit * height


@compiled
def exponential_derivatives(points, out):
    """The derivatives of `exponential_projections`, `(rows, 3, 3)`; NaN where the ratio is too large for this.

    On the curved part a point is `a g(x) + b h(x)` with the rays `g = (x, 1, exp(x))` of the cone and
    `h = (1, 1 - x, -exp(-x))` of the polar cone, and its projection is `a g(x)`: with `M = (g, h, a g' + b h')` the
    derivative is `(g, 0, a g') M^-1`.
    """
    for k in range(len(points)):
        unit = max(abs(points[k, 0]), abs(points[k, 1]), abs(points[k, 2]))
        by = unit if unit > 0 else 1.0
        r, s, t = points[k, 0] / by, points[k, 1] / by, points[k, 2] / by
        where = _region(r, s, t) if unit > 0 else _POLAR  # the apex, where any derivative between zero and one would do
        out[k] = 0.0
        if where == _INSIDE:
            out[k, 0, 0] = out[k, 1, 1] = out[k, 2, 2] = 1.0
        elif where == _FACE:
            out[k, 0, 0] = 1.0
            out[k, 2, 2] = 1.0 if t >= 0 else 0.0
        elif where == _NOTHING:
            out[k] = np.nan
        elif where == _CURVED:
            x, primal, dual = _curved(r, s, t)
            if abs(x) <= _MODERATE:
                _tangent(x, primal, dual, out[k])
            else:
                out[k] = np.nan


@compiled
def _tangent(x, primal, dual, out):
    """The derivative on the curved part, see `exponential_derivatives`."""
    # In units of exp(x) and exp(-x), where these are large.
    up, down = math.exp(min(x, 0.0)), math.exp(min(-x, 0.0))
    g_unit, h_unit = math.exp(min(-x, 0.0)), math.exp(min(x, 0.0))
    a, b = primal / g_unit, dual / h_unit
    g0, g1, g2 = x * g_unit, g_unit, up
    h0, h1, h2 = h_unit, (1 - x) * h_unit, -down
    slope0, slope2 = a * g_unit, a * up  # of the first ray, times its weight; its second entry is zero
    c0, c1, c2 = slope0, -b * h_unit, slope2 + b * down
    # The first and the last row of M^-1 by cross products of its columns g, h and c.
    first0, first1, first2 = h1 * c2 - h2 * c1, h2 * c0 - h0 * c2, h0 * c1 - h1 * c0
    last0, last1, last2 = g1 * h2 - g2 * h1, g2 * h0 - g0 * h2, g0 * h1 - g1 * h0
    by = 1.0 / (g0 * first0 + g1 * first1 + g2 * first2)
    out[0, 0] = by * (g0 * first0 + slope0 * last0)
    out[1, 1] = by * (g1 * first1)
    out[2, 2] = by * (g2 * first2 + slope2 * last2)
    out[0, 1] = out[1, 0] = 0.5 * by * (g0 * first1 + slope0 * last1 + g1 * first0)
    out[0, 2] = out[2, 0] = 0.5 * by * (g0 * first2 + slope0 * last2 + g2 * first0 + slope2 * last0)
    out[1, 2] = out[2, 1] = 0.5 * by * (g1 * first2 + g2 * first1 + slope2 * last1)
