"""One Newton step on all path flows together, by conjugate gradients; compiled.

Shifts between the paths of one pair at a time converge slowly where pairs compete for the same links. Among the known paths
the problem is smooth, so that a step on the path flows, all but one of every pair, ends such tails.
"""

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.games._link_kernel import evaluate, time_at

_CG = 100  # steps of conjugate gradients
_FORCING = 0.01  # their relative tolerance
_HALVINGS = 4
_TURNS = 8  # guesses at the paths that end up without flow


@compiled
def _spread(d, moved, basic, paths, change):
    """The change of link flows when the path flows change by `d`, the basic path of every pair making up for it."""
    pair_first, path_first, links, _ = paths
    change[:] = 0.0
    for p in moved:
        rest = 0.0
        for k in range(pair_first[p], pair_first[p + 1]):
            if d[k] != 0.0:
                rest += d[k]
                for i in range(path_first[k], path_first[k + 1]):
                    change[links[i]] += d[k]
        b = basic[p]
        for i in range(path_first[b], path_first[b + 1]):
            change[links[i]] -= rest


@compiled
def _gather(w, free, moved, basic, paths, out):
    """For every free path, the sum of `w` over its links minus that over the links of the basic path of its pair."""
    pair_first, path_first, links, _ = paths
    for p in moved:
        base = 0.0
        b = basic[p]
        for i in range(path_first[b], path_first[b + 1]):
            base += w[links[i]]
        for k in range(pair_first[p], pair_first[p + 1]):
            if free[k]:
                total = -base
                for i in range(path_first[k], path_first[k + 1]):
                    total += w[links[i]]
                out[k] = total


@compiled
def newton(paths, latency, flow, time, slope):
    """Change path flows, link flows, times and slopes by one step that lowers Beckmann's objective; False: none."""
    pair_first, path_first, links, path_flow = paths
    constant, coefficient, scale, power = latency
    pairs, n, edges = pair_first.shape[0] - 1, pair_first[-1], flow.shape[0]
    basic = np.empty(pairs, dtype=np.int64)
    several = np.empty(pairs, dtype=np.int64)
    count = 0
    for p in range(pairs):
        if pair_first[p + 1] - pair_first[p] > 1:
            several[count] = p
            count += 1
            best = pair_first[p]
            for k in range(pair_first[p] + 1, pair_first[p + 1]):
                if path_flow[k] > path_flow[best]:
                    best = k
            basic[p] = best
    free = np.zeros(n, dtype=np.bool_)
    gradient = np.zeros(n)
    diagonal = np.ones(n)
    mark = np.zeros(edges, dtype=np.int64)
    moved = several[:count]
    any_free = False
    for p in moved:
        b = basic[p]
        base_time, base_slope = 0.0, 0.0
        for i in range(path_first[b], path_first[b + 1]):
            mark[links[i]] = p + 1
            base_time += time[links[i]]
            base_slope += slope[links[i]]
        for k in range(pair_first[p], pair_first[p + 1]):
            if k == b:
                continue
            difference, curvature = -base_time, base_slope
            for i in range(path_first[k], path_first[k + 1]):
                e = links[i]
                difference += time[e]
                curvature += slope[e] if mark[e] != p + 1 else -slope[e]
            # A path without curvature is left to the shifts.
            if curvature > 1e-12 * base_slope and curvature > 0.0 and (path_flow[k] > 0.0 or difference < 0.0):
                free[k] = True
                any_free = True
                gradient[k] = difference
                diagonal[k] = curvature
    if not any_free:
        return False

    d = np.zeros(n)
    product = np.zeros(n)
    change = np.empty(edges)
    at_zero = np.zeros(n, dtype=np.bool_)  # paths that lose all their flow
    for turn in range(_TURNS):
        # The model's minimum over the paths that are not at zero.
        _spread(d, moved, basic, paths, change)
        _gather(change * slope, free, moved, basic, paths, product)
        residual = np.where(free & ~at_zero, -gradient - product, 0.0)
        z = residual / diagonal
        direction = z.copy()
        rho = residual @ z
        enough = max(rho * _FORCING * _FORCING, 1e-300)
        for _ in range(_CG):
            if not rho > enough:
                break
            _spread(direction, moved, basic, paths, change)
            _gather(change * slope, free, moved, basic, paths, product)
            bend = direction @ product
            if not bend > 0.0:
                break
            alpha = rho / bend
            d += alpha * direction
            residual -= np.where(at_zero, 0.0, alpha * product)
            z = residual / diagonal
            old = rho
            rho = residual @ z
            direction = z + (rho / old) * direction
        # Who would have less than nothing goes to zero; who would gain there comes back.
        _spread(d, moved, basic, paths, change)
        _gather(change * slope, free, moved, basic, paths, product)
        turned = False
        for k in range(n):
            if at_zero[k]:
                if gradient[k] + product[k] < 0.0 and turn < _TURNS // 2:
                    at_zero[k] = False
                    turned = True
            elif free[k] and d[k] < -path_flow[k]:
                at_zero[k] = True
                d[k] = -path_flow[k]
                turned = True
        if not turned:
            break

    step = np.zeros(n)
    share = 1.0
    for _ in range(_HALVINGS + 1):
        for p in moved:
            up, down = 0.0, 0.0
            for k in range(pair_first[p], pair_first[p + 1]):
                if free[k]:
                    step[k] = max(share * d[k], -path_flow[k])
                    if step[k] > 0.0:
                        up += step[k]
                    else:
                        down -= step[k]
            room = path_flow[basic[p]] + down
            if up > room:
                for k in range(pair_first[p], pair_first[p + 1]):
                    if free[k] and step[k] > 0.0:
                        step[k] *= room / up
        _spread(step, moved, basic, paths, change)
        before, after = 0.0, 0.0
        for e in range(edges):
            if change[e] != 0.0:
                before += change[e] * time[e]
                after += change[e] * time_at(e, flow[e] + change[e], constant, coefficient, scale, power)
        # Convexity: where the slope along the step has not turned much, the objective is lower.
        if before < 0.0 and after <= -0.3 * before:
            break
        share *= 0.5
    else:
        return False
    for p in moved:
        rest = 0.0
        for k in range(pair_first[p], pair_first[p + 1]):
            if free[k]:
                rest += step[k]
                path_flow[k] = 0.0 if step[k] <= -path_flow[k] else path_flow[k] + step[k]
        path_flow[basic[p]] = max(path_flow[basic[p]] - rest, 0.0)
    for e in range(edges):
        if change[e] != 0.0:
            flow[e] = max(flow[e] + change[e], 0.0)
            evaluate(e, flow, constant, coefficient, scale, power, time, slope)
    return True
