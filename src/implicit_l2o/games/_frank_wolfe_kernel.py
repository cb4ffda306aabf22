"""Frank-Wolfe with conjugate directions on link flows, compiled.

Source: M. Mitradjieva and P. O. Lindberg, The stiff is moving: conjugate direction Frank-Wolfe methods with applications to
traffic assignment, Transportation Science 47 (2013), equations for one and two earlier directions.
"""

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.games._link_kernel import evaluate_all, time_at
from implicit_l2o.games._shortest_path_kernel import shortest_tree

CONVERGED, MAX_STEPS, NONFINITE, INFEASIBLE = 1, 2, 3, 5  # as in Status

_MOST = 0.99  # weight of the earlier point at most, so that the new one is always seen
_BISECTIONS = 60


@compiled
def all_or_nothing(graph, origins, pair_origin, pair_end, demand, time, target, distance, last_edge, heap, place):
    """Put every pair's trips on its cheapest path; their time, and a pair without a path, or -1."""
    first, out_edge, out_head, tail, first_thru = graph
    target[:] = 0.0
    spent = 0.0
    searched = -1
    for p in range(pair_origin.shape[0]):
        if pair_origin[p] != searched:
            searched = pair_origin[p]
            shortest_tree(
                origins[searched], first, out_edge, out_head, first_thru, time, distance, last_edge, heap, place
            )
        node = pair_end[p]
        if not distance[node] < np.inf:
            return spent, p
        spent += demand[p] * distance[node]
        while node != origins[searched]:
            target[last_edge[node]] += demand[p]
            node = tail[last_edge[node]]
    return spent, -1


@compiled
def _line_search(flow, direction, latency):
    """The share of the way, 0 to 1, at which Beckmann's objective is smallest: bisection on its derivative."""
    constant, coefficient, scale, power = latency
    low, high = 0.0, 1.0
    share = 1.0
    for turn in range(_BISECTIONS):
        slope = 0.0
        for e in range(flow.shape[0]):
            if direction[e] != 0.0:
                slope += direction[e] * time_at(e, flow[e] + share * direction[e], constant, coefficient, scale, power)
        if slope <= 0.0:
            low = share
            if turn == 0:
                return 1.0
        else:
            high = share
        share = 0.5 * (low + high)
        if high - low <= 1e-15 * high:
            break
    return share


@compiled
def descend(graph, origins, pair_origin, pair_end, demand, latency, memory, tolerance, max_steps, trace):
    """Link flows, relative gap, status, steps, and a pair without a path, or -1.

    `memory` is the number of earlier directions that a new one is conjugate to: 0, 1 or 2.
    """
    constant, coefficient, scale, power = latency
    edges, nodes = constant.shape[0], graph[0].shape[0] - 1
    distance = np.empty(nodes)
    last_edge = np.empty(nodes, dtype=np.int64)
    heap = np.empty(nodes, dtype=np.int64)
    place = np.empty(nodes, dtype=np.int64)
    flow, time, slope, target = np.zeros(edges), np.empty(edges), np.empty(edges), np.zeros(edges)
    evaluate_all(flow, constant, coefficient, scale, power, time, slope)
    _, lost = all_or_nothing(
        graph, origins, pair_origin, pair_end, demand, time, target, distance, last_edge, heap, place
    )
    if lost >= 0:
        return flow, np.inf, INFEASIBLE, 0, lost
    flow[:] = target
    one, two = np.zeros(edges), np.zeros(edges)  # the points of the last step and of the one before
    known = 0
    share = 0.0
    gap = np.inf
    for step in range(max_steps + 1):
        evaluate_all(flow, constant, coefficient, scale, power, time, slope)
        spent, _ = all_or_nothing(
            graph, origins, pair_origin, pair_end, demand, time, target, distance, last_edge, heap, place
        )
        total = flow @ time
        gap = (total - spent) / total if total > 0.0 else 0.0
        trace[step] = gap
        if not abs(gap) < np.inf:
            return flow, gap, NONFINITE, step, -1
        if gap <= tolerance:
            return flow, gap, CONVERGED, step, -1
        if step == max_steps:
            break
        point = target.copy()
        if memory == 2 and known >= 2 and share < _MOST:
            newer = one - flow
            older = share * one + (1.0 - share) * two - flow
            plain = target - flow
            below = older @ (slope * (two - one))
            mu = -(older @ (slope * plain)) / below if below != 0.0 else 0.0
            mu = max(mu, 0.0) if mu < np.inf else 0.0
            length = newer @ (slope * newer)
            nu = (-(newer @ (slope * plain)) / length if length > 0.0 else 0.0) + mu * share / (1.0 - share)
            nu = max(nu, 0.0) if nu < np.inf else 0.0
            rest = 1.0 / (1.0 + mu + nu)
            if rest < 1.0 - _MOST:
                mu, nu = mu * _MOST / (mu + nu), nu * _MOST / (mu + nu)
                point = (1.0 - _MOST) * target + nu * one + mu * two
            else:
                point = rest * (target + nu * one + mu * two)
        elif memory >= 1 and known >= 1 and share < _MOST:
            newer = one - flow
            above = newer @ (slope * (target - flow))
            below = newer @ (slope * (target - one))
            weight = above / below if below != 0.0 else 0.0
            weight = min(max(weight, 0.0), _MOST) if weight < np.inf else 0.0
            point = weight * one + (1.0 - weight) * target
        direction = point - flow
        if not direction @ time < 0.0:  # rounding has made the conjugate direction useless
            point = target.copy()
            direction = point - flow
            known = 0
        share = _line_search(flow, direction, latency)
        flow = np.maximum(flow + share * direction, 0.0)
        two, one = one, point
        known += 1
    return flow, gap, MAX_STEPS, max_steps, -1
