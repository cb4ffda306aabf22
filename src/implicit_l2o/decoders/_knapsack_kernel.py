"""Branch and bound for 0/1 knapsacks with several constraints, compiled."""

import numpy as np

from implicit_l2o._numba import compiled

_DUAL_STEPS = 60


@compiled
def _sort(order, key):
    """Sort item numbers in place by falling key, equal ones by number (Shell's sort, which is quick to compile)."""
    n = order.shape[0]
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            item = order[i]
            k = i
            while k >= gap:
                other = order[k - gap]
                if key[other] > key[item] or (key[other] == key[item] and other < item):
                    break
                order[k] = other
                k -= gap
            order[k] = item
        gap //= 3


@compiled
def _lagrangian(values, weights, capacity, multipliers, excess):
    """`L(u) = <u, capacity> + sum_j max(0, v_j - <u, w_j>)`, which no knapsack exceeds, and its subgradient in `excess`."""
    m, n = weights.shape
    bound = 0.0
    for k in range(m):
        bound += multipliers[k] * capacity[k]
        excess[k] = capacity[k]
    for j in range(n):
        reduced = values[j]
        for k in range(m):
            reduced -= multipliers[k] * weights[k, j]
        if reduced > 0.0:
            bound += reduced
            for k in range(m):
                excess[k] -= weights[k, j]
    return bound


@compiled
def _greedy(order, values, weights, capacity, chosen):
    """Mark the items that fit, taken in the given order; their value."""
    m, n = weights.shape
    room = np.empty(m)
    for k in range(m):
        room[k] = capacity[k]
    total = 0.0
    for i in range(n):
        j = order[i]
        fits = True
        for k in range(m):
            fits &= weights[k, j] <= room[k]
        chosen[j] = fits
        if fits:
            total += values[j]
            for k in range(m):
                room[k] -= weights[k, j]
    return total


@compiled
def _dual(values, weights, capacity, target):
    """Multipliers of the constraints that nearly minimise the bound `L(u)`, by projected subgradients with Polyak's step.

    Any `u >= 0` gives a valid bound, so how near decides about time alone. `target` is the value of a feasible choice.
    """
    m = weights.shape[0]
    u = np.empty(m)
    best_u = np.empty(m)
    excess = np.empty(m)
    for k in range(m):
        u[k] = best_u[k] = 0.0
    best = np.inf
    relaxation = 1.0
    failures = 0
    for _ in range(_DUAL_STEPS):
        bound = _lagrangian(values, weights, capacity, u, excess)
        if bound < best:
            best = bound
            for k in range(m):
                best_u[k] = u[k]
            failures = 0
        else:
            failures += 1
            if failures == 3:
                relaxation *= 0.5
                failures = 0
        square = 0.0
        for k in range(m):
            if u[k] > 0.0 or excess[k] < 0.0:
                square += excess[k] ** 2
        if square == 0.0 or bound <= target:
            break
        step = relaxation * (bound - target) / square
        for k in range(m):
            u[k] = max(0.0, u[k] - step * excess[k])
    return best_u


@compiled
def _search(values, weights, price, n, capacity, u, incumbent, taken, max_nodes):
    """Depth-first branch and bound over the first `n` items, sorted by value per surrogate weight `price_j = <u, w_j>`.

    Below a node the bound is that of the one surrogate constraint `<price, x> <= <u, room>` without integrality (Dantzig).
    A choice better than `incumbent` is marked in `taken`. 1 where there is one, 0 where not, -1 where the nodes ran out.
    """
    m = weights.shape[0]
    lightest = np.empty((m, n + 1))  # of the items from j on
    for k in range(m):
        lightest[k, n] = np.inf
        for j in range(n - 1, -1, -1):
            lightest[k, j] = min(lightest[k, j + 1], weights[k, j])
    stack = np.empty(n, dtype=np.int64)
    room = np.empty((n + 1, m))
    for k in range(m):
        room[0, k] = capacity[k]
    value = np.empty(n + 1)
    value[0] = 0.0
    depth = 0
    j = 0
    found = 0
    for _ in range(max_nodes):
        bound = value[depth]
        slack = 0.0
        full = False
        for k in range(m):
            slack += u[k] * room[depth, k]
            full |= lightest[k, j] > room[depth, k]
        if not full:
            for i in range(j, n):
                if price[i] <= slack:
                    slack -= price[i]
                    bound += values[i]
                else:
                    bound += values[i] * slack / price[i]
                    break
        if j < n and bound > incumbent + 1e-12 * abs(incumbent):
            fits = True
            for k in range(m):
                fits &= weights[k, j] <= room[depth, k]
            if fits:
                for k in range(m):
                    room[depth + 1, k] = room[depth, k] - weights[k, j]
                value[depth + 1] = value[depth] + values[j]
                stack[depth] = j
                depth += 1
                if value[depth] > incumbent:
                    incumbent = value[depth]
                    found = 1
                    for i in range(n):
                        taken[i] = False
                    for d in range(depth):
                        taken[stack[d]] = True
            j += 1
        elif depth == 0:
            return found
        else:
            depth -= 1
            j = stack[depth] + 1
    return -1


@compiled
def _by_efficiency(values, weights, price, order):
    """Sort items by value per weight priced by the given price of each constraint."""
    m, n = weights.shape
    ratio = np.empty(n)
    for j in range(n):
        priced = 0.0
        for k in range(m):
            priced += price[k] * weights[k, j]
        ratio[j] = values[j] / priced if priced > 0.0 else np.inf
        order[j] = j
    _sort(order, ratio)


@compiled
def _best_choice(values, weights, capacity, chosen, max_nodes):
    """Mark the most valuable choice of items, whose values are all positive and each of which fits alone.

    Whether the search came to its end.
    """
    m, n = weights.shape
    order = np.empty(n, dtype=np.int64)
    trial = np.empty(n, dtype=np.bool_)
    # A first choice by value per share of the capacities, then one by value per optimal price.
    share = np.empty(m)
    for k in range(m):
        share[k] = 1.0 / capacity[k] if capacity[k] > 0.0 else 0.0
    _by_efficiency(values, weights, share, order)
    incumbent = _greedy(order, values, weights, capacity, chosen)
    u = _dual(values, weights, capacity, incumbent)
    _by_efficiency(values, weights, u, order)
    second = _greedy(order, values, weights, capacity, trial)
    if second > incumbent:
        incumbent = second
        for j in range(n):
            chosen[j] = trial[j]
    # The core: an item whose negative reduced value lowers the bound to the incumbent is in no better choice.
    bound = _lagrangian(values, weights, capacity, u, share)
    core_values = np.empty(n)
    core_weights = np.empty((m, n))
    core_price = np.empty(n)
    size = 0
    for place in range(n):
        j = order[place]
        price = 0.0
        for k in range(m):
            price += u[k] * weights[k, j]
        if bound + min(0.0, values[j] - price) > incumbent * (1.0 + 1e-12):
            order[size] = j
            core_values[size] = values[j]
            core_price[size] = price
            for k in range(m):
                core_weights[k, size] = weights[k, j]
            size += 1
    found = _search(core_values, core_weights, core_price, size, capacity, u, incumbent, trial, max_nodes)
    if found == 1:
        for j in range(n):
            chosen[j] = False
        for i in range(size):
            chosen[order[i]] = trial[i]
    return found >= 0


@compiled
def knapsacks(costs, weights, capacity, items, max_nodes):
    """Mark the items of each sample's most valuable knapsack, for values `-costs`, in `items`, which is all zero.

    The number of samples solved: all, or those before the one whose search took more than `max_nodes`.
    """
    m, n = weights.shape
    fits_alone = np.empty(n, dtype=np.bool_)
    for j in range(n):
        fits_alone[j] = True
        for k in range(m):
            fits_alone[j] &= weights[k, j] <= capacity[k]
    candidates = np.empty(n, dtype=np.int64)
    for sample in range(costs.shape[0]):
        count = 0
        for j in range(n):
            if fits_alone[j] and costs[sample, j] < 0.0:  # an item without value is never taken
                candidates[count] = j
                count += 1
        v = np.empty(count)
        w = np.empty((m, count))
        for i in range(count):
            v[i] = -costs[sample, candidates[i]]
            for k in range(m):
                w[k, i] = weights[k, candidates[i]]
        chosen = np.empty(count, dtype=np.bool_)
        if not _best_choice(v, w, capacity, chosen, max_nodes):
            return sample
        for i in range(count):
            if chosen[i]:
                items[sample, candidates[i]] = 1.0
    return costs.shape[0]
