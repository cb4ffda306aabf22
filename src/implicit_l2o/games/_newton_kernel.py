"""One Newton step on all path flows together, by conjugate gradients; compiled.

Shifts between the paths of one pair at a time converge slowly where pairs compete for the same links. Among the known paths
the problem is smooth, so that a step on the path flows, all but one of every pair, ends such tails.

A free path `f` gives or takes flow to the basic path of its pair. The links whose flow then changes are
`links[first[f]:first[f + 1]]` with the signs `sign`; the matrix of these columns is `Z`, the Hessian `Z^T diag(slope) Z`.
"""

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.games._link_kernel import evaluate, time_at

_CG = 100  # steps of conjugate gradients
_FORCING = 0.01  # their relative tolerance
_HALVINGS = 4
_REBASES = 3  # further choices of the basic paths
_TURNS = 8  # guesses at the paths that end up without flow


@compiled
def _most(paths, basic_of):
    """The path with most flow of every pair."""
    pair_first, _, _, path_flow = paths
    for p in range(pair_first.shape[0] - 1):
        best = pair_first[p]
        for k in range(pair_first[p] + 1, pair_first[p + 1]):
            if path_flow[k] > path_flow[best]:
                best = k
        basic_of[p] = best


@compiled
def _columns(paths, basic_of, time, slope):
    """The free paths, their basic paths, gradient and diagonal of the Hessian; and `first`, `links`, `sign` of `Z`.

    Free are the paths besides the basic one that carry flow or are faster than it.
    """
    pair_first, path_first, links, path_flow = paths
    n = pair_first[-1]
    free = np.empty(n, dtype=np.int64)
    basic = np.empty(n, dtype=np.int64)
    gradient = np.empty(n)
    diagonal = np.empty(n)
    first = np.empty(n + 1, dtype=np.int64)
    found = np.empty(2 * path_first[n] + 2, dtype=np.int64)
    sign = np.empty(found.shape[0])
    mark = np.zeros(time.shape[0], dtype=np.int64)
    stamp = 0
    m = 0
    size = 0
    first[0] = 0
    for p in range(pair_first.shape[0] - 1):
        begin, end = pair_first[p], pair_first[p + 1]
        if end - begin < 2:
            continue
        b = basic_of[p]
        base_slope = 0.0
        for i in range(path_first[b], path_first[b + 1]):
            base_slope += slope[links[i]]
        for k in range(begin, end):
            if k == b:
                continue
            stamp += 2
            for i in range(path_first[b], path_first[b + 1]):
                mark[links[i]] = stamp
            difference, curvature = 0.0, 0.0
            here = size
            most = here + path_first[k + 1] - path_first[k] + path_first[b + 1] - path_first[b]
            if most > found.shape[0]:
                longer = np.empty(2 * most, dtype=np.int64)
                longer[:here] = found[:here]
                found = longer
                signs = np.empty(2 * most)
                signs[:here] = sign[:here]
                sign = signs
            for i in range(path_first[k], path_first[k + 1]):
                e = links[i]
                if mark[e] == stamp:
                    mark[e] = stamp + 1
                else:
                    found[here] = e
                    sign[here] = 1.0
                    here += 1
                    difference += time[e]
                    curvature += slope[e]
            for i in range(path_first[b], path_first[b + 1]):
                e = links[i]
                if mark[e] == stamp:
                    found[here] = e
                    sign[here] = -1.0
                    here += 1
                    difference -= time[e]
                    curvature += slope[e]
            # A path without curvature is left to the shifts.
            if curvature > 1e-12 * base_slope and curvature > 0.0 and (path_flow[k] > 0.0 or difference < 0.0):
                free[m] = k
                basic[m] = b
                gradient[m] = difference
                diagonal[m] = curvature
                size = here
                m += 1
                first[m] = size
    return free[:m], basic[:m], gradient[:m], diagonal[:m], (first[: m + 1], found[:size], sign[:size])


@compiled
def _spread(d, columns, change):
    """The change of link flows, `Z d`."""
    first, links, sign = columns
    change[:] = 0.0
    for f in range(d.shape[0]):
        if d[f] != 0.0:
            for i in range(first[f], first[f + 1]):
                change[links[i]] += sign[i] * d[f]


@compiled
def _curve(d, columns, slope, change, out):
    """`Z^T diag(slope) Z d`."""
    first, links, sign = columns
    _spread(d, columns, change)
    for e in range(change.shape[0]):
        change[e] *= slope[e]
    for f in range(d.shape[0]):
        total = 0.0
        for i in range(first[f], first[f + 1]):
            total += sign[i] * change[links[i]]
        out[f] = total


@compiled
def _minimum(columns, gradient, diagonal, available, slope, change):
    """The minimum of the quadratic model over steps that leave no path with less than nothing.

    Paths that would end below zero are put at zero and the others solved again; a path at zero that would gain comes back.
    """
    m = gradient.shape[0]
    d, product, residual = np.zeros(m), np.zeros(m), np.zeros(m)
    at_zero = np.zeros(m, dtype=np.bool_)
    for turn in range(_TURNS):
        _curve(d, columns, slope, change, product)
        for f in range(m):
            residual[f] = 0.0 if at_zero[f] else -gradient[f] - product[f]
        direction = residual / diagonal
        rho = residual @ direction
        enough = rho * _FORCING * _FORCING
        for _ in range(_CG):
            if not rho > enough:
                break
            _curve(direction, columns, slope, change, product)
            bend = direction @ product
            if not bend > 0.0:
                break
            alpha = rho / bend
            old = rho
            rho = 0.0
            for f in range(m):
                d[f] += alpha * direction[f]
                if not at_zero[f]:
                    residual[f] -= alpha * product[f]
                    rho += residual[f] * residual[f] / diagonal[f]
            for f in range(m):
                direction[f] = residual[f] / diagonal[f] + (rho / old) * direction[f]
        _curve(d, columns, slope, change, product)
        turned = False
        for f in range(m):
            if at_zero[f]:
                if gradient[f] + product[f] < 0.0 and turn < _TURNS // 2:
                    at_zero[f] = False
                    turned = True
            elif d[f] < -available[f]:
                at_zero[f] = True
                d[f] = -available[f]
                turned = True
        if not turned:
            break
    return d


@compiled
def _other_basics(free, basic, d, path_flow, basic_of, pair_first):
    """Where a basic path would be left with less than nothing, make basic the path that would have most; whether any was."""
    changed = False
    begin, p = 0, 0
    while begin < free.shape[0]:
        end = begin
        left = path_flow[basic[begin]]
        best = begin
        while end < free.shape[0] and basic[end] == basic[begin]:
            left -= d[end]
            if path_flow[free[end]] + d[end] > path_flow[free[best]] + d[best]:
                best = end
            end += 1
        if left < 0.0:
            while pair_first[p + 1] <= basic[begin]:
                p += 1
            basic_of[p] = free[best]
            changed = True
        begin = end
    return changed


@compiled
def newton(paths, latency, flow, time, slope):
    """Change path flows, link flows, times and slopes by one step that lowers Beckmann's objective; False: none."""
    constant, coefficient, scale, power = latency
    path_flow = paths[3]
    basic_of = np.empty(paths[0].shape[0] - 1, dtype=np.int64)
    _most(paths, basic_of)
    change = np.empty(flow.shape[0])
    free, basic, gradient, diagonal, columns = _columns(paths, basic_of, time, slope)
    available = path_flow[free]
    d = _minimum(columns, gradient, diagonal, available, slope, change)
    for _ in range(_REBASES):
        if not _other_basics(free, basic, d, path_flow, basic_of, paths[0]):
            break
        free, basic, gradient, diagonal, columns = _columns(paths, basic_of, time, slope)
        available = path_flow[free]
        d = _minimum(columns, gradient, diagonal, available, slope, change)
    m = free.shape[0]
    if m == 0:
        return False
    step = np.empty(m)
    share = 1.0
    for _ in range(_HALVINGS + 1):
        begin = 0
        while begin < m:  # the free paths of one pair follow each other
            end = begin
            up, down = 0.0, 0.0
            while end < m and basic[end] == basic[begin]:
                step[end] = max(share * d[end], -available[end])
                up += max(step[end], 0.0)
                down -= min(step[end], 0.0)
                end += 1
            room = path_flow[basic[begin]] + down
            if up > room:
                for f in range(begin, end):
                    if step[f] > 0.0:
                        step[f] *= room / up
            begin = end
        _spread(step, columns, change)
        before, after = 0.0, 0.0
        for e in range(flow.shape[0]):
            if change[e] != 0.0:
                before += change[e] * time[e]
                after += change[e] * time_at(e, flow[e] + change[e], constant, coefficient, scale, power)
        # Convexity: where the slope along the step has not turned much, the objective is lower.
        if before < 0.0 and after <= -0.3 * before:
            break
        share *= 0.5
    else:
        return False
    for f in range(m):
        k = free[f]
        path_flow[k] = 0.0 if step[f] <= -path_flow[k] else path_flow[k] + step[f]
        path_flow[basic[f]] -= step[f]
    for f in range(m):
        path_flow[basic[f]] = max(path_flow[basic[f]], 0.0)
    for e in range(flow.shape[0]):
        if change[e] != 0.0:
            flow[e] = max(flow[e] + change[e], 0.0)
            evaluate(e, flow, constant, coefficient, scale, power, time, slope)
    return True
