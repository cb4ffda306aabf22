"""Bellman's equation on the directed grid, compiled."""

import numpy as np

from implicit_l2o._numba import compiled


@compiled
def grid_paths(costs, side, paths):
    """Mark the arcs of each sample's cheapest path from the first node to the last in `paths`, which is all zero.

    Row by row, `d[i, j] = min(d[i-1, j] + south, d[i, j-1] + east)`; a tie goes to the southward arc, whose number is lower.
    Only one row of distances is kept, and for every node whether its best arc comes from the west.
    """
    block = 2 * side - 1  # arcs that leave one row of nodes
    distance = np.empty(side)
    from_west = np.empty((side, side), dtype=np.uint8)
    for sample in range(costs.shape[0]):
        cost = costs[sample]
        west = 0.0
        distance[0] = west
        for j in range(1, side):
            west += cost[j - 1]
            distance[j] = west
            from_west[0, j] = 1
        from_west[0, 0] = 1
        for i in range(1, side):
            east_arcs = i * block
            south_arcs = east_arcs - side
            west = distance[0] + cost[south_arcs]
            distance[0] = west
            from_west[i, 0] = 0
            for j in range(1, side):
                north = distance[j] + cost[south_arcs + j]
                west = west + cost[east_arcs + j - 1]
                from_west[i, j] = west < north
                west = min(west, north)
                distance[j] = west
        i, j = side - 1, side - 1
        while i > 0 or j > 0:
            if from_west[i, j]:
                j -= 1
                paths[sample, i * block + j] = 1.0
            else:
                i -= 1
                paths[sample, i * block + side - 1 + j] = 1.0
