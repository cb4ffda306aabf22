"""Shortest paths on a directed grid by dynamic programming."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from implicit_l2o._numba import require_numba
from implicit_l2o.decoders.base import AbstractDecoder


@final
@dataclass(frozen=True)
class GridPaths(AbstractDecoder):
    """The cheapest path from the first to the last node of a `side x side` grid with arcs to the east and to the south.

    Nodes and arcs are numbered as in `implicit_l2o.data.shortest_path.Grid`: row by row, the eastward arcs of a row before
    the southward arcs that leave it. The grid has no cycles, so one sweep of Bellman's equation is exact for costs of either
    sign; it takes `O(side^2)` a sample. Of equally cheap arcs into a node the southward one is taken.

    Args:
        side: nodes along one side, at least 2; there are `2 side (side - 1)` arcs.

    Raises:
        ValueError: the side is below 2.
        ModuleNotFoundError: numba is not installed, when the decoder is called.

    Source: R. Bellman, On a routing problem, Quarterly of Applied Mathematics 16 (1958).

    Example:
        >>> import torch
        >>> from implicit_l2o.decoders import GridPaths
        >>> GridPaths(2)(torch.tensor([[1.0, 2.0, 1.0, 2.0], [1.0, -2.0, 1.0, 2.0]]))
        tensor([[1., 0., 1., 0.],
                [0., 1., 0., 1.]])
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 2:
            raise ValueError(f"GridPaths needs side >= 2; got side={self.side}.")

    @property
    def n(self) -> int:
        """Number of arcs, `2 side (side - 1)`."""
        return 2 * self.side * (self.side - 1)

    def solve(self, costs: NDArray[np.floating]) -> NDArray[np.floating]:
        """The paths for finite costs `(B, n)`."""
        require_numba("GridPaths")
        from implicit_l2o.decoders._grid_kernel import grid_paths

        paths = np.zeros_like(costs)
        grid_paths(costs, self.side, paths)
        return paths
