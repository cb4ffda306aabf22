"""Compiled semismooth Newton on the dual of `min c.x + gamma |x|^2 / 2 : R x = b or <= b, lower <= x <= upper`.

For multipliers `y` (`<= 0` of an inequality) the minimiser is `x(y) = clip((R^T y - c) / gamma)`; the dual's gradient is
`b - R x(y)`: piecewise linear, so Newton ends after finitely many steps, exactly. The method is that of X. Li, D. Sun and
K.-C. Toh, A highly efficient semismooth Newton augmented Lagrangian method, SIAM J. Optim. 28 (2018).
"""

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.linear_program._ldl import (
    factorise,
    leave_out,
    multiply,
    multiply_transposed,
    solve,
    weigh,
)

_ROUNDING = 64 * 2.0**-52  # of `R^T y - c`, which a small gamma divides
_MOST_ROUNDING = 1e3  # of the tolerance: the multipliers of an infeasible program grow without bound
_LINE_STEPS = 60
_LINE = 1e-3  # of the slope at the start: a flatter point ends the line search


@compiled
def clip(slope, gamma, lower, upper, x, inside):
    """Set `x` to the clipped `slope / gamma`, and `inside` to 1 where it is strictly inside the bounds."""
    for j in range(len(slope)):
        v = slope[j] / gamma
        inside[j] = 1.0
        if v <= lower[j]:
            v, inside[j] = lower[j], 0.0
        elif v >= upper[j]:
            v, inside[j] = upper[j], 0.0
        x[j] = v


@compiled
def judge(rows, y, gap, gamma, active):
    """The residual of the optimality conditions, from `gap = b - R x(y)`; fills in which rows are active."""
    worst, total = 0.0, 0.0
    for i in range(rows.m):
        total += gap[i] + y[i]
        if i < rows.m_eq:
            active[i] = True
            worst = max(worst, abs(gap[i]))
        else:
            active[i] = -y[i] > gamma * gap[i]
            worst = max(worst, abs(min(-y[i] / gamma, gap[i])))
    return worst if np.isfinite(total) else np.inf  # a maximum does not see a NaN


@compiled
def line(rows, b, p, slope, across, gamma, lower, upper, start, longest):
    """The step along `p`, at most the longest one, at which the dual is largest: a root of its decreasing derivative."""
    level = 0.0
    for i in range(rows.m):
        level += p[i] * b[i]
    low, high, t = 0.0, np.inf, min(1.0, longest)
    for _ in range(_LINE_STEPS):
        rise, bend = level, 0.0
        for j in range(rows.n):
            v = (slope[j] + t * across[j]) / gamma
            if v <= lower[j]:
                v = lower[j]
            elif v >= upper[j]:
                v = upper[j]
            else:
                bend += across[j] * across[j]
            rise -= across[j] * v
        if abs(rise) <= _LINE * start or t > 1e6 or (rise > 0 and t >= longest):
            break
        if rise > 0:
            low = t
        else:
            high = t
        ahead = t + rise * gamma / bend if bend > 0 else np.inf
        if not (low < ahead < high):
            ahead = 0.5 * (low + high) if high < np.inf else 2 * t
        t = min(ahead, longest)
    return t


@compiled
def newton(rows, factor, b, c, lower, upper, gamma, tolerance, most, search, x, y):
    """Improve `y` until the optimality conditions hold to `tolerance`, and `x = x(y)`.

    With `search` the dual rises in every step, which stops where a multiplier of an inequality vanishes; without, close
    to the solution, any number of them may vanish in one step. Returns the number of steps, -1 where `most` were too few.
    """
    m, n = rows.m, rows.n
    slope, inside, across = np.empty(n), np.empty(n), np.empty(n)
    gap, p, nothing = np.empty(m), np.empty(m), np.zeros(m)
    active = np.ones(m, np.bool_)
    for step in range(most + 1):
        multiply_transposed(rows, y, slope)
        largest = 0.0
        for j in range(n):
            largest = max(largest, abs(slope[j]), abs(c[j]))
            slope[j] -= c[j]
        clip(slope, gamma, lower, upper, x, inside)
        multiply(rows, x, gap)
        for i in range(m):
            gap[i] = b[i] - gap[i]
        residual = judge(rows, y, gap, gamma, active)
        if residual <= max(tolerance, min(_ROUNDING * largest / gamma, _MOST_ROUNDING * tolerance)):
            return step
        if step == most or not np.isfinite(residual):
            break
        shift = False
        for i in range(rows.m_eq, m):
            if not active[i] and y[i] != 0.0:
                y[i], shift = 0.0, True
        if shift:  # the gap that the piece around `x` has without the multipliers that were let go
            multiply_transposed(rows, y, slope)
            for j in range(n):
                slope[j] -= c[j]
                if inside[j] != 0.0:
                    across[j] = slope[j] / gamma
                else:
                    across[j] = x[j]
            multiply(rows, across, gap)
            for i in range(m):
                gap[i] = b[i] - gap[i]
        for i in range(m):
            gap[i] = gamma * gap[i] if active[i] else 0.0
        weigh(rows, inside, nothing, factor)
        if m > rows.m_eq:
            leave_out(rows, active, factor)
        factorise(rows, factor)
        solve(rows, factor, gap, p)
        t = 1.0
        if search:
            start, longest = 0.0, np.inf
            for i in range(m):
                start += p[i] * gap[i] / gamma
                if i >= rows.m_eq and active[i] and p[i] > 0:
                    longest = min(longest, -y[i] / p[i])
            multiply_transposed(rows, p, across)
            t = line(rows, b, p, slope, across, gamma, lower, upper, start, longest)
        for i in range(m):
            y[i] += t * p[i]
    return -1


@compiled
def pull_back(rows, factor, b, c, lower, upper, gamma, y, v, in_cost, in_rhs):
    """The cotangents of `c` and `b` at the solution that `y` gives, for the cotangent `v` of `x`: exact on its support.

    With `S` the free variables and `A` the active rows, `x_S = (R_AS^T y_A - c_S) / gamma` and `R_AS x_S = b_A - const`, so
    `M w = R_AS v_S` with `M = R_AS R_AS^T` gives `db_A = w` and `dc_S = (R_AS^T w - v_S) / gamma`.
    """
    m, n = rows.m, rows.n
    slope, inside, x = np.empty(n), np.empty(n), np.empty(n)
    gap, nothing = np.empty(m), np.zeros(m)
    active = np.ones(m, np.bool_)
    multiply_transposed(rows, y, slope)
    for j in range(n):
        slope[j] -= c[j]
    clip(slope, gamma, lower, upper, x, inside)
    multiply(rows, x, gap)
    for i in range(m):
        gap[i] = b[i] - gap[i]
    judge(rows, y, gap, gamma, active)
    weigh(rows, inside, nothing, factor)
    if m > rows.m_eq:
        leave_out(rows, active, factor)
    factorise(rows, factor)
    for j in range(n):
        x[j] = v[j] * inside[j]
    multiply(rows, x, gap)
    for i in range(m):
        if not active[i]:
            gap[i] = 0.0
    solve(rows, factor, gap, in_rhs)
    multiply_transposed(rows, in_rhs, slope)
    for j in range(n):
        in_cost[j] = inside[j] * (slope[j] - v[j]) / gamma
