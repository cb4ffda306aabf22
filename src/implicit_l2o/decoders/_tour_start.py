"""A good tour to start an exact search from: nearest neighbour, 2-opt, Or-opt, and kicks, compiled.

Source: D. S. Johnson and L. A. McGeoch, The Traveling Salesman Problem: A Case Study in Local Optimization, in Local
Search in Combinatorial Optimization (1997).
"""

import numpy as np

from implicit_l2o._numba import compiled

_GAIN = 1e-12  # of the spread of the costs: a smaller gain may be rounding


@compiled
def nearest_neighbour(cost, tour):
    """Fill `tour` from city 0 on, each time with the nearest city not yet seen."""
    n = cost.shape[0]
    for i in range(n):
        tour[i] = i
    for i in range(1, n - 1):
        best = i
        for j in range(i + 1, n):
            if cost[tour[i - 1], tour[j]] < cost[tour[i - 1], tour[best]]:
                best = j
        city = tour[i]
        tour[i] = tour[best]
        tour[best] = city


@compiled
def _two_opt(cost, tour, least):
    """Reverse stretches of the tour while that gains more than `least`; whether any did."""
    n = cost.shape[0]
    any_gain = False
    again = True
    while again:
        again = False
        for i in range(n - 2):
            for j in range(i + 2, n):
                a, b, c, d = tour[i], tour[i + 1], tour[j], tour[(j + 1) % n]
                if a == d:
                    continue
                if cost[a, b] + cost[c, d] - cost[a, c] - cost[b, d] > least:
                    low, high = i + 1, j
                    while low < high:
                        city = tour[low]
                        tour[low] = tour[high]
                        tour[high] = city
                        low += 1
                        high -= 1
                    again = any_gain = True
    return any_gain


@compiled
def _or_opt(cost, tour, least, buffer):
    """Move one stretch of up to three cities elsewhere, either way round, if that gains; whether it did."""
    n = cost.shape[0]
    for length in range(1, min(3, n - 3) + 1):
        for i in range(n):
            before, first = tour[i - 1], tour[i]
            last, after = tour[(i + length - 1) % n], tour[(i + length) % n]
            removed = cost[before, first] + cost[last, after] - cost[before, after]
            for k in range(length, n - 1):  # between the cities k and k + 1 places after the first
                c, d = tour[(i + k) % n], tour[(i + k + 1) % n]
                straight = cost[c, first] + cost[last, d] - cost[c, d]
                turned = cost[c, last] + cost[first, d] - cost[c, d]
                if removed - min(straight, turned) > least:
                    place = 0
                    for m in range(length, k + 1):
                        buffer[place] = tour[(i + m) % n]
                        place += 1
                    for m in range(length):
                        buffer[place] = tour[(i + (m if straight <= turned else length - 1 - m)) % n]
                        place += 1
                    for m in range(k + 1, n):
                        buffer[place] = tour[(i + m) % n]
                        place += 1
                    for m in range(n):
                        tour[m] = buffer[m]
                    return True
    return False


@compiled
def _descend(cost, tour, least, buffer):
    """To a tour that neither 2-opt nor Or-opt improves."""
    again = True
    while again:
        again = _two_opt(cost, tour, least)
        while _or_opt(cost, tour, least, buffer):
            again = True


@compiled
def tour_cost(cost, tour):
    """The sum of the costs along the closed tour."""
    total = cost[tour[-1], tour[0]]
    for i in range(1, tour.shape[0]):
        total += cost[tour[i - 1], tour[i]]
    return total


@compiled
def improve(cost, tour, kicks, spread):
    """Local search with double-bridge kicks, each kept if it does not cost more; leaves the best tour in `tour`, its cost.

    Args:
        cost: `(n, n)` symmetric.
        tour: `(n,)` the start.
        kicks: how many.
        spread: of the costs; says what rounding is.
    """
    n = cost.shape[0]
    least = _GAIN * spread
    buffer = np.empty(n, dtype=np.int64)
    trial = np.empty(n, dtype=np.int64)
    _descend(cost, tour, least, buffer)
    best = tour_cost(cost, tour)
    if n < 8:
        return best
    state = 12345
    cut = np.empty(3, dtype=np.int64)
    for _ in range(kicks):
        # A linear congruential generator: the same kicks for the same costs, whatever was solved before.
        state = (1103515245 * state + 12345) % 2147483648
        start = (state >> 16) % n
        for k in range(3):  # three cuts within a window of 3 * 6 places, so that the kick stays local
            state = (1103515245 * state + 12345) % 2147483648
            cut[k] = 1 + (state >> 16) % min(6, (n - 2) // 3)
        a, b, c = cut[0], cut[0] + cut[1], cut[0] + cut[1] + cut[2]
        place = 0
        for low, high in ((0, a), (b, c), (a, b), (c, n)):
            for m in range(low, high):
                trial[place] = tour[(start + m) % n]
                place += 1
        _descend(cost, trial, least, buffer)
        found = tour_cost(cost, trial)
        if found <= best:
            best = found
            for m in range(n):
                tour[m] = trial[m]
    return best
