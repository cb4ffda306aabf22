"""Branch and bound for symmetric travelling salesmen by the 1-tree bound of Held and Karp, compiled.

A 1-tree is a spanning tree over the cities 1 to n - 1 and the two cheapest edges at city 0. A tour is a 1-tree of which
every city has two edges, so for any prices `pi` of the cities `min over 1-trees of sum_e (c_e + pi_i + pi_j) - 2 sum pi` is
a lower bound. Its subgradient in `pi` is the number of edges at each city less two.

Longer than most files here: bound, branching and the search share their arrays and are read together.

Edges have a state: 0 open, 1 in every tour of the subproblem, -1 in none.

Source: M. Held and R. M. Karp, The traveling-salesman problem and minimum spanning trees II, Math. Prog. 1 (1971);
T. Volgenant and R. Jonker, A branch and bound algorithm for the symmetric traveling salesman problem based on the 1-tree
relaxation, EJOR 9 (1982).
"""

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.decoders._tour_start import improve, nearest_neighbour

_EXACT = 1e-10  # of the costs' spread, an edge: what two tours may differ by and count as equally good
_ROOT_STEPS, _STEPS = 150, 25  # of the subgradient method, in the whole problem and in a subproblem
_KICKS = 3  # more cost more time than their better tours save


@compiled
def _one_tree(cost, state, big, pi, parent, order, key, degree):
    """The cheapest 1-tree under prices, and its bound; infinite where the state allows none.

    `parent` gets the tree rooted at city 1, `order` its cities as they were reached; `parent[0]` and `parent[1]` get the two
    neighbours of city 0.
    """
    n = cost.shape[0]
    for i in range(n):
        degree[i] = 0
        key[i] = np.inf
        order[i] = i
    bound = 0.0
    city = 1
    for reached in range(1, n - 1):  # order[1 : reached + 1] is in the tree
        best, place = np.inf, -1
        for k in range(reached + 1, n):
            j = order[k]
            if state[city, j] != -1:
                w = cost[city, j] + pi[city] + pi[j]
                if state[city, j] == 1:
                    w -= big
                if w < key[j]:
                    key[j] = w
                    parent[j] = city
            if key[j] < best:
                best = key[j]
                place = k
        if place < 0:
            return np.inf
        city = order[place]
        order[place] = order[reached + 1]
        order[reached + 1] = city
        up = parent[city]
        bound += cost[city, up] + pi[city] + pi[up]
        degree[city] += 1
        degree[up] += 1
    first = second = -1
    low = lower = np.inf  # of the second and of the first
    for j in range(1, n):
        if state[0, j] != -1:
            w = cost[0, j] + pi[j]
            if state[0, j] == 1:
                w -= big
            if w < lower:
                second, low = first, lower
                first, lower = j, w
            elif w < low:
                second, low = j, w
    if second < 0:
        return np.inf
    parent[0], parent[1] = first, second
    bound += cost[0, first] + cost[0, second] + 2.0 * pi[0] + pi[first] + pi[second]
    degree[0] = 2
    degree[first] += 1
    degree[second] += 1
    for i in range(n):
        bound -= 2.0 * pi[i]
    return bound


@compiled
def _ascend(cost, state, big, pi, parent, order, key, degree, steps, upper, least):
    """Raise the bound by the prices; the best one, with its prices left in `pi` and its 1-tree in `parent`.

    Polyak's steps towards `upper`, each direction averaged with the one before. It ends when the bound excludes what is
    better than `upper` by `least`, or where the 1-tree is a tour.
    """
    n = cost.shape[0]
    best_pi = pi.copy()
    direction = np.zeros(n)
    best, relaxation, idle = -np.inf, 1.0, 0
    for _ in range(steps):
        bound = _one_tree(cost, state, big, pi, parent, order, key, degree)
        square = 0
        for i in range(n):
            square += (degree[i] - 2) ** 2
        if bound > best:
            best, idle = bound, 0
            for i in range(n):
                best_pi[i] = pi[i]
        else:
            idle += 1
            if idle == 4:
                relaxation *= 0.6
                idle = 0
        if bound >= upper - least or square == 0:
            return bound
        step = relaxation * max(upper - bound, least) / square
        for i in range(n):
            direction[i] = 0.7 * (degree[i] - 2) + 0.3 * direction[i]
            pi[i] += step * direction[i]
    for i in range(n):
        pi[i] = best_pi[i]
    return _one_tree(cost, state, big, pi, parent, order, key, degree)


@compiled
def _settle(state, a, b, value, settled):
    state[a, b] = state[b, a] = value
    return settled + 1


@compiled
def _propagate(state, other_end):
    """Settle edges that the settled ones imply; False where no tour is left."""
    n = state.shape[0]
    settled = 1
    while settled:
        settled = 0
        for i in range(n):
            taken = open_edges = 0
            for j in range(n):
                if j != i:
                    taken += state[i, j] == 1
                    open_edges += state[i, j] == 0
            if taken > 2 or taken + open_edges < 2:
                return False
            if open_edges and (taken == 2 or taken + open_edges == 2):
                value = -1 if taken == 2 else 1
                for j in range(n):
                    if j != i and state[i, j] == 0:
                        settled = _settle(state, i, j, value, settled)
        # The ends of a path of taken edges must not meet, unless it holds every city.
        for i in range(n):
            other_end[i] = -1
        for i in range(n):
            taken = 0
            for j in range(n):
                taken += state[i, j] == 1 and j != i
            if taken != 1 or other_end[i] >= 0:
                continue
            before, city, length = -1, i, 1
            while True:
                after = -1
                for j in range(n):
                    if j != city and j != before and state[city, j] == 1:
                        after = j
                if after < 0:
                    break
                before, city = city, after
                length += 1
                if length > n:
                    return False
            other_end[i], other_end[city] = city, i
            if length < n and state[i, city] == 0:
                settled = _settle(state, i, city, -1, settled)
    return True


@compiled
def _exchange(cost, state, pi, parent, order, bound, upper, least, depth, rise):
    """Exclude edges that would raise the bound to `upper`, take those without which it would rise so far.

    An edge that enters the tree replaces the dearest open edge of the circuit it closes. `rise[i]` gets by how much the
    bound rises without the edge from city `i` to its parent.
    """
    n = cost.shape[0]
    depth[1] = 0
    for k in range(2, n):
        depth[order[k]] = depth[parent[order[k]]] + 1
        rise[order[k]] = np.inf
    for i in range(2, n):
        for j in range(1, i):
            if state[i, j] != 0 or (parent[i] == j) or (j > 1 and parent[j] == i):
                continue
            w = cost[i, j] + pi[i] + pi[j]
            dearest = -np.inf
            a, b = i, j
            while a != b:
                if depth[a] < depth[b]:
                    a, b = b, a
                up = parent[a]
                if state[a, up] == 0:
                    in_tree = cost[a, up] + pi[a] + pi[up]
                    dearest = max(dearest, in_tree)
                    rise[a] = min(rise[a], w - in_tree)
                a = up
            if bound + w - dearest >= upper - least:
                state[i, j] = state[j, i] = -1
    first, second = parent[0], parent[1]
    lower, low = cost[0, first] + pi[first], cost[0, second] + pi[second]
    third = np.inf
    for j in range(1, n):
        if state[0, j] == 0 and j not in (first, second):
            w = cost[0, j] + pi[j]
            third = min(third, w)
            least_rise = w - low if state[0, second] == 0 else w - lower
            if bound + least_rise >= upper - least:
                state[0, j] = state[j, 0] = -1
    for city, price in ((first, lower), (second, low)):
        if state[0, city] == 0 and bound + third - price >= upper - least:
            state[0, city] = state[city, 0] = 1
    for k in range(2, n):
        i = order[k]
        up = parent[i]
        if state[i, up] == 0 and bound + rise[i] >= upper - least:
            state[i, up] = state[up, i] = 1


@compiled
def _read_tour(parent, order, degree, tour):
    """The cities of a 1-tree that is a tour, in order."""
    n = degree.shape[0]
    near = np.full((n, 2), -1)
    for k in range(2, n + 2):
        a = order[k] if k < n else 0
        b = parent[a] if k < n else parent[k - n]
        near[a, 0 if near[a, 0] < 0 else 1] = b
        near[b, 0 if near[b, 0] < 0 else 1] = a
    before, city = -1, 0
    for i in range(n):
        tour[i] = city
        after = near[city, 0] if near[city, 0] != before else near[city, 1]
        before, city = city, after


@compiled
def _branch_edge(state, parent, order, degree, rise):
    """The open edge of the 1-tree, at a city with more than two, whose loss raises the bound the most."""
    n = state.shape[0]
    best, a, b = -1.0, -1, -1
    for k in range(2, n):
        i = order[k]
        up = parent[i]
        if state[i, up] == 0 and max(degree[i], degree[up]) > 2 and rise[i] > best:
            best, a, b = rise[i], i, up
    if a < 0:
        for k in range(2):
            if state[0, parent[k]] == 0 and degree[parent[k]] > 2:
                return 0, parent[k]
    return a, b


@compiled
def best_tour(cost, tour, max_nodes):
    """Leave the cheapest tour in `tour`; the subproblems looked at, or -1 where there would be more than `max_nodes`.

    Args:
        cost: `(n, n)` symmetric, of mean zero off the diagonal.
        tour: `(n,)`.
        max_nodes: of the search.
    """
    n = cost.shape[0]
    spread = np.abs(cost).max()
    nearest_neighbour(cost, tour)
    if n < 4 or spread == 0.0:
        return 0
    upper = improve(cost, tour, _KICKS, spread)
    least = _EXACT * n * spread
    big = 1e6 * spread
    parent, order, degree = (
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=np.int64),
    )
    depth, key, rise = np.empty(n, dtype=np.int64), np.empty(n), np.empty(n)
    states = np.zeros((16, n, n), dtype=np.int8)
    prices = np.zeros((16, n))
    top, nodes = 0, 0
    while top >= 0:
        if nodes == max_nodes:
            return -1
        nodes += 1
        state, pi = states[top], prices[top]
        top -= 1
        if not _propagate(state, depth):
            continue
        bound = _ascend(
            cost, state, big, pi, parent, order, key, degree, _STEPS if nodes > 1 else _ROOT_STEPS, upper, least
        )
        if bound >= upper - least:
            continue
        if degree.max() == 2:
            upper = bound
            _read_tour(parent, order, degree, tour)
            continue
        _exchange(cost, state, pi, parent, order, bound, upper, least, depth, rise)
        a, b = _branch_edge(state, parent, order, degree, rise)
        if a < 0:  # all edges there were settled just now: look at the subproblem again
            top += 1
            continue
        if top + 3 > states.shape[0]:
            more = np.zeros((2 * states.shape[0], n, n), dtype=np.int8)
            more[: top + 2] = states[: top + 2]
            states = more
            more_prices = np.zeros((2 * prices.shape[0], n))
            more_prices[: top + 2] = prices[: top + 2]
            prices = more_prices
        states[top + 2] = states[top + 1]
        prices[top + 2] = prices[top + 1]
        states[top + 1, a, b] = states[top + 1, b, a] = -1
        states[top + 2, a, b] = states[top + 2, b, a] = 1
        top += 2
    return nodes


@compiled
def tours(costs, n, edges, max_nodes):
    """Mark the edges of each sample's cheapest tour in `edges`, which is all zero.

    The number of samples solved: all, or those before the one whose search took more than `max_nodes`.
    """
    cost = np.zeros((n, n))
    tour = np.empty(n, dtype=np.int64)
    for sample in range(costs.shape[0]):
        mean = 0.0
        for e in range(costs.shape[1]):
            mean += costs[sample, e] / costs.shape[1]
        e = 0
        for i in range(n):
            for j in range(i + 1, n):
                cost[i, j] = cost[j, i] = costs[sample, e] - mean  # every tour has n edges, so they all move alike
                e += 1
        if best_tour(cost, tour, max_nodes) < 0:
            return sample
        for i in range(n):
            a, b = min(tour[i - 1], tour[i]), max(tour[i - 1], tour[i])
            edges[sample, a * (2 * n - a - 1) // 2 + b - a - 1] = 1.0
    return costs.shape[0]
