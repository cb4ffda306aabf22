"""Compiled solution of a batch: an interior-point method or a given start, then Newton on the dual until it is exact."""

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.linear_program._dual_newton import newton, pull_back
from implicit_l2o.linear_program._interior_point import begin, interior_point
from implicit_l2o.linear_program._ldl import factorise, multiply, multiply_transposed, room, solve, weigh

# The central path is followed to the first of these, and further where Newton does not end from there.
# With equations alone the line search ends from farther away.
_PATH = (1e-3, 1e-5, 1e-8, 1e-10)
_PATH_STEPS = 100
_NEWTON_STEPS = 12
_SEARCH_STEPS = 200
# The dual of so few rows is searched directly.
_FEW_ROWS = 8
_FEW_STEPS = 30


@compiled
def solve_warm(rows, b, c, lower, upper, gamma, tolerance, most, x, y, steps):
    """Newton from the multipliers `y` of each sample; `steps` says how many, -1 where it did not end."""
    factor = room(rows)
    for k in range(len(c)):
        steps[k] = newton(
            rows,
            factor,
            b[k % len(b)],
            c[k],
            lower[k % len(lower)],
            upper[k % len(upper)],
            gamma,
            tolerance[k],
            most,
            rows.m == rows.m_eq,
            x[k],
            y[k],
        )


@compiled
def solve_cold(rows, b, c, lower, upper, gamma, tolerance, wanted, x, y, steps):
    """Solve the wanted samples from scratch; the start is the point of least norm with the multipliers nearest to `c`."""
    m, n = rows.m, rows.n
    factor, gram = room(rows), room(rows)
    weigh(rows, np.ones(n), np.zeros(m), gram)
    factorise(rows, gram)
    load, multipliers = np.empty(m), np.empty(m)
    for k in range(len(c)):
        if not wanted[k]:
            continue
        right, low, high = b[k % len(b)], lower[k % len(lower)], upper[k % len(upper)]
        solve(rows, gram, right, multipliers)
        multiply_transposed(rows, multipliers, x[k])
        multiply(rows, c[k], load)
        solve(rows, gram, load, multipliers)
        if m <= _FEW_ROWS:
            for i in range(m):
                y[k, i] = multipliers[i] if i < rows.m_eq else min(multipliers[i], 0.0)
            steps[k] = newton(rows, factor, right, c[k], low, high, gamma, tolerance[k], _FEW_STEPS, True, x[k], y[k])
            if steps[k] >= 0:
                continue
        point, of_x, of_cost = begin(rows, right, c[k], low, high, gamma, x[k], multipliers)
        taken, ended = 0, -1
        exact = np.empty(n)
        for accuracy in _PATH:
            if m > rows.m_eq and accuracy == _PATH[0]:
                continue
            on_path = interior_point(
                rows, factor, right, c[k], low, high, gamma, accuracy, _PATH_STEPS, point, of_x, of_cost
            )
            if on_path < 0:
                break
            taken += on_path
            y[k] = multipliers
            search = m == rows.m_eq
            ended = newton(
                rows, factor, right, c[k], low, high, gamma, tolerance[k], _NEWTON_STEPS, search, exact, y[k]
            )
            if ended >= 0:
                break
        if ended < 0:  # degenerate: the active rows keep changing, unless every step has to raise the dual
            y[k] = multipliers
            ended = newton(rows, factor, right, c[k], low, high, gamma, tolerance[k], _SEARCH_STEPS, True, exact, y[k])
        x[k] = exact
        steps[k] = taken + ended if ended >= 0 else -1


@compiled
def measure(rows, b, x, y, gap, price):
    """`gap = b - R x` and `price = R^T y`, per sample."""
    for k in range(len(x)):
        multiply(rows, x[k], gap[k])
        for i in range(rows.m):
            gap[k, i] = b[k % len(b), i] - gap[k, i]
        multiply_transposed(rows, y[k], price[k])


@compiled
def pull_back_batch(rows, b, c, lower, upper, gamma, y, v, in_cost, in_rhs):
    """The exact cotangents of costs and right-hand sides, per sample."""
    factor = room(rows)
    for k in range(len(c)):
        pull_back(
            rows,
            factor,
            b[k % len(b)],
            c[k],
            lower[k % len(lower)],
            upper[k % len(upper)],
            gamma,
            y[k],
            v[k],
            in_cost[k],
            in_rhs[k],
        )
