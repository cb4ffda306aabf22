"""User equilibrium over paths: column generation by shortest paths, and Newton shifts of flow between paths; compiled.

Source: R. Jayakrishnan, W. K. Tsai, J. N. Prashker and S. Rajadhyaksha, A faster path-based algorithm for traffic
assignment, Transportation Research Record 1443 (1994), with pairwise shifts, each safeguarded by a bracket.

Pairs of origin and destination are sorted by origin. The paths of pair `p` are `pair_first[p]:pair_first[p + 1]`, the links
of path `k` are `links[path_first[k]:path_first[k + 1]]`, last link first.
"""

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.games._link_kernel import evaluate, evaluate_all, time_at
from implicit_l2o.games._newton_kernel import newton
from implicit_l2o.games._shortest_path_kernel import shortest_tree

CONVERGED, MAX_STEPS, NONFINITE, INFEASIBLE = 1, 2, 3, 5  # as in Status

_SWEEPS = 40  # at most so many between two searches for new paths
_PATIENCE = 2  # sweeps before Newton steps on all path flows alternate with them
_INNER = 0.1  # the gap among known paths is brought below this share of the gap
_KEPT = 0.01  # a path without flow is kept while its time exceeds the cheapest by this share at most
_SAME = 1e-13  # relative difference of two times that are the same but for rounding


@compiled
def load(pair_first, path_first, links, path_flow, flow):
    """Link flows of path flows."""
    flow[:] = 0.0
    for k in range(pair_first[-1]):
        for i in range(path_first[k], path_first[k + 1]):
            flow[links[i]] += path_flow[k]


@compiled
def load_origins(pair_origin, pair_first, path_first, links, path_flow, origin_flow):
    """Link flows of every origin."""
    for p in range(pair_origin.shape[0]):
        for k in range(pair_first[p], pair_first[p + 1]):
            for i in range(path_first[k], path_first[k + 1]):
                origin_flow[pair_origin[p], links[i]] += path_flow[k]


@compiled
def _longer(links, need):
    grown = np.empty(max(need, 2 * links.shape[0]), dtype=links.dtype)
    grown[: links.shape[0]] = links
    return grown


@compiled
def generate(graph, origins, pair_origin, pair_end, demand, time, paths):
    """Drop paths without flow and add the cheapest ones.

    Returns the new paths, the excess `sum_k flow_k (time_k - cheapest)`, the total time, and a pair without any path, or -1.
    """
    first, out_edge, out_head, tail, first_thru = graph
    pair_first, path_first, links, path_flow = paths
    nodes = first.shape[0] - 1
    pairs = pair_origin.shape[0]
    distance = np.empty(nodes)
    last_edge = np.empty(nodes, dtype=np.int64)
    heap = np.empty(nodes, dtype=np.int64)
    place = np.empty(nodes, dtype=np.int64)
    most = pair_first[-1] + pairs
    new_pair_first = np.empty(pairs + 1, dtype=np.int64)
    new_path_first = np.empty(most + 1, dtype=np.int64)
    new_flow = np.empty(most)
    new_links = np.empty(links.shape[0] + nodes, dtype=np.int32)
    new_pair_first[0] = 0
    new_path_first[0] = 0
    n = 0  # new paths
    size = 0  # links of the new paths
    excess = 0.0
    total = 0.0
    searched = -1
    for p in range(pairs):
        if pair_origin[p] != searched:
            searched = pair_origin[p]
            shortest_tree(
                origins[searched], first, out_edge, out_head, first_thru, time, distance, last_edge, heap, place
            )
        cheapest = distance[pair_end[p]]
        if not cheapest < np.inf:
            return (new_pair_first, new_path_first, new_links, new_flow), excess, total, p
        best = np.inf
        for k in range(pair_first[p], pair_first[p + 1]):
            cost = 0.0
            for i in range(path_first[k], path_first[k + 1]):
                cost += time[links[i]]
            best = min(best, cost)
            if path_flow[k] <= 0.0 and cost > cheapest * (1.0 + _KEPT):
                continue
            excess += path_flow[k] * max(cost - cheapest, 0.0)
            total += path_flow[k] * cost
            length = path_first[k + 1] - path_first[k]
            if size + length > new_links.shape[0]:
                new_links = _longer(new_links, size + length)
            new_links[size : size + length] = links[path_first[k] : path_first[k + 1]]
            size += length
            new_flow[n] = path_flow[k]
            n += 1
            new_path_first[n] = size
        if cheapest < best * (1.0 - _SAME):
            if size + nodes > new_links.shape[0]:
                new_links = _longer(new_links, size + nodes)
            node = pair_end[p]
            while node != origins[searched]:
                new_links[size] = last_edge[node]
                size += 1
                node = tail[last_edge[node]]
            new_flow[n] = demand[p] if pair_first[p + 1] == pair_first[p] else 0.0
            n += 1
            new_path_first[n] = size
        new_pair_first[p + 1] = n
    return (new_pair_first, new_path_first, new_links, new_flow), excess, total, -1


@compiled
def _shift(out, n_out, into, n_into, most, difference, latency, flow, time, slope):
    """Move flow from the links `out` to the links `into` until their times agree, at most `most`; how much was moved.

    One Newton step; where it goes too far, the bracket is closed by the secant.
    """
    constant, coefficient, scale, power = latency
    curvature = 0.0
    for i in range(n_out):
        curvature += slope[out[i]]
    for i in range(n_into):
        curvature += slope[into[i]]
    delta = most if difference >= curvature * most else difference / curvature
    low, low_difference = 0.0, difference
    for _ in range(30):
        left = 0.0
        for i in range(n_out):
            left += time_at(out[i], flow[out[i]] - delta, constant, coefficient, scale, power)
        for i in range(n_into):
            left -= time_at(into[i], flow[into[i]] + delta, constant, coefficient, scale, power)
        if left >= -0.3 * difference or not left < np.inf:
            break
        delta = max(low + (delta - low) * low_difference / (low_difference - left), 0.5 * low + 0.1 * delta)
    for i in range(n_out):
        e = out[i]
        flow[e] = max(flow[e] - delta, 0.0)
        evaluate(e, flow, constant, coefficient, scale, power, time, slope)
    for i in range(n_into):
        e = into[i]
        flow[e] += delta
        evaluate(e, flow, constant, coefficient, scale, power, time, slope)
    return delta


@compiled
def known_excess(paths, time):
    """`sum_k flow_k (time_k - cheapest)` over the known paths alone.

    A sweep cannot measure it on its way: every pair is balanced when it is left, and upset by the pairs that follow.
    """
    pair_first, path_first, links, path_flow = paths
    excess = 0.0
    for p in range(pair_first.shape[0] - 1):
        if pair_first[p + 1] - pair_first[p] < 2:
            continue
        cheapest = np.inf
        spent = 0.0
        carried = 0.0
        for k in range(pair_first[p], pair_first[p + 1]):
            cost = 0.0
            for i in range(path_first[k], path_first[k + 1]):
                cost += time[links[i]]
            cheapest = min(cheapest, cost)
            spent += path_flow[k] * cost
            carried += path_flow[k]
        excess += spent - carried * cheapest
    return excess


@compiled
def sweep(paths, latency, flow, time, slope, close, mark, stamp, out, into):
    """Shift flow within every pair, from its costlier paths to its cheapest one.

    `close` is the relative difference of two times below which nothing is shifted. Returns the last stamp of `mark`.
    """
    pair_first, path_first, links, path_flow = paths
    for p in range(pair_first.shape[0] - 1):
        begin, end = pair_first[p], pair_first[p + 1]
        if end - begin < 2:
            continue
        best = -1
        cheapest = np.inf
        worst = 0.0
        for k in range(begin, end):
            cost = 0.0
            for i in range(path_first[k], path_first[k + 1]):
                cost += time[links[i]]
            if cost < cheapest:
                cheapest = cost
                best = k
            if path_flow[k] > 0.0:
                worst = max(worst, cost)
        if worst - cheapest <= close * cheapest:
            continue
        for k in range(begin, end):
            if k == best or path_flow[k] <= 0.0:
                continue
            stamp += 2
            for i in range(path_first[best], path_first[best + 1]):
                mark[links[i]] = stamp
            difference = 0.0
            n_out = 0
            for i in range(path_first[k], path_first[k + 1]):
                e = links[i]
                if mark[e] == stamp:
                    mark[e] = stamp + 1
                else:
                    out[n_out] = e
                    n_out += 1
                    difference += time[e]
            n_into = 0
            for i in range(path_first[best], path_first[best + 1]):
                e = links[i]
                if mark[e] == stamp:
                    into[n_into] = e
                    n_into += 1
                    difference -= time[e]
            if difference > 0.0:
                delta = _shift(out, n_out, into, n_into, path_flow[k], difference, latency, flow, time, slope)
                if delta >= path_flow[k]:
                    path_flow[best] += path_flow[k]
                    path_flow[k] = 0.0
                else:
                    path_flow[best] += delta
                    path_flow[k] -= delta
    return stamp


@compiled
def equilibrate(graph, origins, pair_origin, pair_end, demand, latency, paths, tolerance, max_steps, trace):
    """Paths and their flows at user equilibrium.

    `trace[step]` becomes the relative gap before that step. Returns paths, link flows, gap, status, steps, and a pair
    without any path, or -1.
    """
    constant, coefficient, scale, power = latency
    edges = constant.shape[0]
    nodes = graph[0].shape[0] - 1
    flow = np.zeros(edges)
    time = np.empty(edges)
    slope = np.empty(edges)
    mark = np.zeros(edges, dtype=np.int64)
    out = np.empty(nodes, dtype=np.int64)
    into = np.empty(nodes, dtype=np.int64)
    stamp = 0
    gap = np.inf
    load(paths[0], paths[1], paths[2], paths[3], flow)
    evaluate_all(flow, constant, coefficient, scale, power, time, slope)
    if np.any(paths[0][1:] == paths[0][:-1]):  # a pair without a start takes the cheapest path
        paths, _, _, lost = generate(graph, origins, pair_origin, pair_end, demand, time, paths)
        if lost >= 0:
            return paths, flow, gap, INFEASIBLE, 0, lost
        load(paths[0], paths[1], paths[2], paths[3], flow)
        evaluate_all(flow, constant, coefficient, scale, power, time, slope)
    for step in range(max_steps + 1):
        paths, excess, total, lost = generate(graph, origins, pair_origin, pair_end, demand, time, paths)
        if lost >= 0:
            return paths, flow, gap, INFEASIBLE, step, lost
        gap = excess / total if total > 0.0 else excess
        trace[step] = gap
        if not gap < np.inf:
            return paths, flow, gap, NONFINITE, step, -1
        if gap <= tolerance:
            return paths, flow, gap, CONVERGED, step, -1
        if step == max_steps:
            break
        wanted = max(_INNER * gap, 0.3 * tolerance)
        helps = True
        for swept in range(_SWEEPS):
            stamp = sweep(paths, latency, flow, time, slope, 0.1 * wanted, mark, stamp, out, into)
            if not known_excess(paths, time) > wanted * total:
                break
            if helps and swept >= _PATIENCE - 1:
                helps = newton(paths, latency, flow, time, slope)
        # What rounding has added to the link flows goes.
        load(paths[0], paths[1], paths[2], paths[3], flow)
        evaluate_all(flow, constant, coefficient, scale, power, time, slope)
    return paths, flow, gap, MAX_STEPS, max_steps, -1
