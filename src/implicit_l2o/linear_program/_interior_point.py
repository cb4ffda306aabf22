"""Compiled primal-dual interior-point method for `min c.x + gamma |x|^2 / 2 : R x = b or <= b, lower <= x <= upper`.

Predictor and corrector of S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J. Optim. 2
(1992); each iteration factorises `R H^{-1} R^T`, `H` diagonal. Multipliers of inequalities are `<= 0`, as in `_dual_newton`.
"""

from typing import NamedTuple

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.linear_program._ldl import factorise, multiply, multiply_transposed, solve, weigh

_INTERIOR = 0.1  # of the scale of x or of the costs: the least distance of the start from the boundary
_LONGEST = 0.995  # of the way to the boundary


class Interior(NamedTuple):
    """An iterate: `x` with the multipliers of its bounds, `y` of the rows, the slacks of the inequalities.

    `bounded` says of each variable whether its lower and its upper bound count: not where they are infinite, nor where they
    agree, for a fixed variable has no interior.
    """

    bounded: np.ndarray
    fixed: np.ndarray
    x: np.ndarray
    below: np.ndarray
    above: np.ndarray
    y: np.ndarray
    slack: np.ndarray


@compiled
def begin(rows, b, c, lower, upper, gamma, x, y):
    """An interior point near `x` and `y`, and the scales of `x` and of the costs."""
    m, n = rows.m, rows.n
    bounded, fixed = np.zeros((2, n), np.bool_), np.zeros(n, np.bool_)
    for j in range(n):
        fixed[j] = lower[j] >= upper[j]
        bounded[0, j] = lower[j] > -np.inf and not fixed[j]
        bounded[1, j] = upper[j] < np.inf and not fixed[j]
    point = Interior(bounded, fixed, x, np.zeros(n), np.zeros(n), y, np.zeros(m))
    price, load = np.empty(n), np.empty(m)
    multiply_transposed(rows, y, price)
    # Rows have norm one, so `b` is a distance like `x`; without either, the minimiser that only the costs give.
    of_x, of_cost = 0.0, 0.0
    for j in range(n):
        of_x, of_cost = max(of_x, abs(x[j])), max(of_cost, abs(c[j]))
    for i in range(m):
        of_x = max(of_x, abs(b[i]))
    if of_x == 0.0:
        of_x = of_cost / gamma if of_cost > 0.0 else 1.0
    of_cost = max(of_cost, gamma * of_x)
    for j in range(n):
        width = min(upper[j] - lower[j], of_x)
        x[j] = min(max(x[j], lower[j] + _INTERIOR * width), upper[j] - _INTERIOR * width)
        reduced = c[j] + gamma * x[j] - price[j]
        if bounded[0, j]:
            point.below[j] = max(reduced, 0.0) + _INTERIOR * of_cost
        if bounded[1, j]:
            point.above[j] = max(-reduced, 0.0) + _INTERIOR * of_cost
    multiply(rows, x, load)
    for i in range(rows.m_eq, m):
        point.slack[i] = max(b[i] - load[i], _INTERIOR * of_x)
        y[i] = min(y[i], -_INTERIOR * of_cost)
    return point, of_x, of_cost


@compiled
def interior_point(rows, factor, b, c, lower, upper, gamma, tolerance, most, point, of_x, of_cost):
    """Follow the central path to a mean complementarity of `tolerance` times the scales; the iterations, -1 if it fails."""
    m, n, m_eq = rows.m, rows.n, rows.m_eq
    bounded, fixed, x, below, above, y, slack = point
    dual, primal = np.empty(n), np.empty(m)
    weight, target, dx, price = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    load, dy, ds, diagonal = np.empty(m), np.empty(m), np.zeros(m), np.zeros(m)
    d_below, d_above = np.zeros(n), np.zeros(n)
    e_below, e_above, e_slack = np.zeros(n), np.zeros(n), np.zeros(m)  # products of the predictor's steps
    pairs = m - m_eq
    for j in range(n):
        pairs += bounded[0, j] + bounded[1, j]
    for iteration in range(most):
        multiply_transposed(rows, y, price)
        multiply(rows, x, load)
        mean, off_dual, off_primal = 0.0, 0.0, 0.0
        for j in range(n):
            dual[j] = 0.0 if fixed[j] else price[j] + below[j] - above[j] - c[j] - gamma * x[j]
            off_dual = max(off_dual, abs(dual[j]))
            if bounded[0, j]:
                mean += below[j] * (x[j] - lower[j])
            if bounded[1, j]:
                mean += above[j] * (upper[j] - x[j])
        for i in range(m):
            primal[i] = b[i] - load[i] - slack[i]
            off_primal = max(off_primal, abs(primal[i]))
            mean -= slack[i] * y[i]
        mean /= max(pairs, 1)
        if not np.isfinite(mean + off_dual + off_primal):
            return -1
        off = max(off_dual / of_cost, off_primal / of_x)
        if mean <= tolerance * of_cost * of_x and off <= 1e3 * tolerance:
            return iteration
        for j in range(n):
            h = gamma
            if bounded[0, j]:
                h += below[j] / (x[j] - lower[j])
            if bounded[1, j]:
                h += above[j] / (upper[j] - x[j])
            weight[j] = 0.0 if fixed[j] else 1.0 / h
        for i in range(m_eq, m):
            diagonal[i] = -slack[i] / y[i]
        weigh(rows, weight, diagonal, factor)
        factorise(rows, factor)
        center, longest = 0.0, np.inf
        for corrector in range(2):
            for j in range(n):
                g = dual[j]
                if bounded[0, j]:
                    g += (center - corrector * e_below[j]) / (x[j] - lower[j]) - below[j]
                if bounded[1, j]:
                    g -= (center - corrector * e_above[j]) / (upper[j] - x[j]) - above[j]
                target[j] = g
                price[j] = weight[j] * g
            multiply(rows, price, load)
            for i in range(m):
                load[i] = primal[i] - load[i]
                if i >= m_eq:
                    load[i] += (center - corrector * e_slack[i]) / y[i] + slack[i]
            solve(rows, factor, load, dy)
            multiply_transposed(rows, dy, price)
            longest = np.inf
            for j in range(n):
                d = weight[j] * (price[j] + target[j])
                dx[j] = d
                if bounded[0, j]:
                    room = x[j] - lower[j]
                    d_below[j] = (center - corrector * e_below[j] - below[j] * d) / room - below[j]
                    longest = min(longest, -room / d if d < 0 else longest)
                    longest = min(longest, -below[j] / d_below[j] if d_below[j] < 0 else longest)
                if bounded[1, j]:
                    room = upper[j] - x[j]
                    d_above[j] = (center - corrector * e_above[j] + above[j] * d) / room - above[j]
                    longest = min(longest, room / d if d > 0 else longest)
                    longest = min(longest, -above[j] / d_above[j] if d_above[j] < 0 else longest)
            for i in range(m_eq, m):
                ds[i] = -(center - corrector * e_slack[i]) / y[i] - slack[i] - slack[i] / y[i] * dy[i]
                longest = min(longest, -slack[i] / ds[i] if ds[i] < 0 else longest)
                longest = min(longest, -y[i] / dy[i] if dy[i] > 0 else longest)
            if corrector == 0:
                if pairs == 0:
                    break
                full = min(1.0, longest)
                ahead = 0.0
                for j in range(n):
                    e_below[j], e_above[j] = d_below[j] * dx[j], -d_above[j] * dx[j]
                    if bounded[0, j]:
                        ahead += (below[j] + full * d_below[j]) * (x[j] - lower[j] + full * dx[j])
                    if bounded[1, j]:
                        ahead += (above[j] + full * d_above[j]) * (upper[j] - x[j] - full * dx[j])
                for i in range(m_eq, m):
                    e_slack[i] = -dy[i] * ds[i]
                    ahead -= (y[i] + full * dy[i]) * (slack[i] + full * ds[i])
                center = mean * max(ahead / pairs / mean, 0.0) ** 3
        length = min(1.0, _LONGEST * longest)
        for j in range(n):
            x[j] += length * dx[j]
            below[j] += length * d_below[j]
            above[j] += length * d_above[j]
        for i in range(m):
            y[i] += length * dy[i]
            slack[i] += length * ds[i]
    return -1
