"""Subtour constraints that relaxed tours violate, found as minimum cuts.

A tour crosses from a set `S` of cities to the others at least twice, `sum_{e leaves S} x_e >= 2`. There are `2^(n-1) - 1`
such constraints, so they are added as they are violated.

Source: G. Dantzig, R. Fulkerson and S. Johnson, Solution of a large-scale traveling-salesman problem, Operations Research 2
(1954); M. Stoer and F. Wagner, A simple min-cut algorithm, JACM 44 (1997).
"""

from collections import Counter

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

VIOLATED = 0.05  # by less, a constraint is not worth its row


def phase_cuts(weights: Float[np.ndarray, "n n"]) -> list[tuple[float, NDArray[np.bool_]]]:
    """The value and one side of every cut of the phase in Stoer and Wagner's algorithm; the least of them is a minimum cut.

    Args:
        weights: of the edges, symmetric, not negative, zero on the diagonal.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.applications.travelling_salesman.cuts import phase_cuts
        >>> two_pairs = np.kron(np.eye(2), 1 - np.eye(2)) + 0.1 * (1 - np.kron(np.eye(2), np.ones((2, 2))))
        >>> value, side = min(phase_cuts(two_pairs), key=lambda cut: cut[0])
        >>> round(value, 6), int(side.sum())
        (0.4, 2)
    """
    weights = weights.copy()
    n = len(weights)
    merged = np.eye(n, dtype=bool)  # which cities a vertex stands for
    alive = list(range(n))
    cuts = []
    while len(alive) > 1:
        index = np.array(alive)
        w = weights[np.ix_(index, index)]
        key, outside = w[0].copy(), np.ones(len(index), dtype=bool)
        outside[0] = False
        before = last = 0
        value = 0.0
        for _ in range(len(index) - 1):
            before, last = last, int(np.where(outside, key, -1.0).argmax())
            outside[last] = False
            value = key[last]
            key += w[last]
        a, b = index[before], index[last]
        cuts.append((float(value), merged[b].copy()))
        merged[a] |= merged[b]
        weights[a] += weights[b]
        weights[:, a] += weights[:, b]
        weights[a, a] = 0.0
        alive.remove(b)
    return cuts


def frequent_cuts(x: Float[Tensor, "B edges"], edges: NDArray[np.integer], *, most: int) -> Bool[Tensor, "cuts edges"]:
    """The subtour constraints that most of the relaxed tours violate, as the edges that leave each set of cities.

    Args:
        x: relaxed tours.
        edges: `(edges, 2)` the cities of each.
        most: how many constraints at most.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.travelling_salesman.cuts import frequent_cuts
        >>> from implicit_l2o.decoders import TravellingSalesman
        >>> edges = TravellingSalesman(6).edges
        >>> triangles = torch.tensor([[float((a < 3) == (b < 3)) for a, b in edges]])  # 0, 1, 2 and 3, 4, 5
        >>> frequent_cuts(triangles, edges, most=5).sum(1)  # one constraint, of the nine edges between them
        tensor([9])
    """
    n = int(edges.max()) + 1
    found: Counter[bytes] = Counter()
    for sample in x.detach().double().cpu().numpy():
        weights = np.zeros((n, n))
        weights[edges[:, 0], edges[:, 1]] = weights[edges[:, 1], edges[:, 0]] = np.maximum(sample, 0.0)
        sides = {
            (side ^ side[0]).tobytes() for value, side in phase_cuts(weights) if value < 2.0 - VIOLATED
        }  # the side without city 0
        found.update(sides)
    rows = []
    for side, _ in found.most_common(most):
        inside = np.frombuffer(side, dtype=bool)
        rows.append(inside[edges[:, 0]] != inside[edges[:, 1]])
    return torch.from_numpy(np.array(rows, dtype=bool).reshape(len(rows), len(edges)))
