"""Bellman's equation on the grid in PyTorch alone, for programs of `torch.export`, which hold no compiled decoder."""

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.data.shortest_path import Grid


def shortest_paths_in_torch(grid: Grid, costs: Float[Tensor, "B arcs"]) -> Float[Tensor, "B arcs"]:
    """What `Grid.shortest_paths` answers, ties included, as a fixed sequence of `O(side^2)` operations.

    Args:
        grid: the graph.
        costs: one cost an arc.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.bellman import shortest_paths_in_torch
        >>> from implicit_l2o.data.shortest_path import Grid
        >>> shortest_paths_in_torch(Grid(2), torch.tensor([[1.0, 2.0, 1.0, 2.0]]))
        tensor([[1., 0., 1., 0.]])
    """
    side = grid.side
    block = 2 * side - 1  # arcs that leave one row of nodes
    east = torch.tensor([[max(i * block + j - 1, 0) for j in range(side)] for i in range(side)])
    south = torch.tensor([[max((i - 1) * block + side - 1 + j, 0) for j in range(side)] for i in range(side)])
    columns = costs.unbind(1)
    distance: list[Tensor] = []
    from_west = []
    for i in range(side):
        for j in range(side):
            here, west = torch.zeros_like(columns[0]), torch.ones_like(columns[0], dtype=torch.bool)
            if j:
                here = distance[j - 1] + columns[i * block + j - 1]
            if i:
                north = distance[j] + columns[(i - 1) * block + side - 1 + j]
                west = here < north if j else torch.zeros_like(west)
                here = torch.where(west, here, north)
            distance[j : j + 1] = [here]
            from_west.append(west)
    came = torch.stack(from_west, dim=1)
    paths, node = torch.zeros_like(costs), torch.full_like(came[:, :1], side**2 - 1, dtype=torch.int64)
    for _ in range(2 * (side - 1)):
        west = came.gather(1, node)
        arc = torch.where(west, east.flatten()[node], south.flatten()[node])
        paths = paths.scatter(1, arc, 1.0)
        node = torch.where(west, node - 1, node - side)
    return paths
