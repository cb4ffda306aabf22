"""The scalar equations of curved cones, compiled: many cones cost one call instead of many small tensor operations.

`_bracket.find_root` does the same without numba. It is imported where it is used, for numba is in an extra.
"""

import math

from implicit_l2o._numba import compiled

_MOST = 200


@compiled
def exponential_ratios(r, s, t, low, high, start, out):
    """The roots `out` of the equation of `exponential_cone`, between `low` and `high`."""
    for k in range(len(r)):
        a, b, x = low[k], high[k], start[k]
        before = b - a
        for _ in range(_MOST):
            size, slope = x * (x - 1) + 1, 2 * x - 1
            primal, dual = ((x - 1) * r[k] + s[k]) / size, (r[k] - x * s[k]) / size
            up, down = math.exp(x), math.exp(-x)
            value = up * primal - down * dual - t[k]
            if value < 0:
                a = x
            elif value > 0:
                b = x
            else:
                break
            derivative = up * (primal + (r[k] - slope * primal) / size) + down * (dual + (s[k] + slope * dual) / size)
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
        out[k] = x
