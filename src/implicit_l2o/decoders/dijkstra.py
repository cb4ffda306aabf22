"""Shortest paths in any directed graph with costs that are not negative."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from implicit_l2o._numba import require_numba
from implicit_l2o.decoders.base import AbstractDecoder, to_numpy


@final
@dataclass(frozen=True, eq=False)
class Dijkstra(AbstractDecoder):
    """The cheapest path from a source to a target, as a 0/1 vector over the arcs of a directed graph.

    `O((nodes + arcs) log nodes)` a sample, and less where the target is near: the search ends there. Costs of nodes are
    costs of the arcs that enter them.

    Args:
        n_nodes: number of nodes; they are `0, ..., n_nodes - 1`.
        arcs: tail and head of every arc, `(arcs, 2)` integers; parallel arcs and loops are allowed.
        source: where the paths begin.
        target: where they end; another node than the source.

    Raises:
        ValueError: a node is outside `[0, n_nodes)`, source and target are the same, or no path joins them. When the decoder
            is called: a cost is negative.
        ModuleNotFoundError: numba is not installed, when the decoder is called.

    Source: E. W. Dijkstra, A note on two problems in connexion with graphs, Numerische Mathematik 1 (1959).

    Example:
        >>> import torch
        >>> from implicit_l2o.decoders import Dijkstra
        >>> shortest = Dijkstra(3, [[0, 1], [1, 2], [0, 2]], source=0, target=2)
        >>> shortest(torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 1.5]]))
        tensor([[1., 1., 0.],
                [0., 0., 1.]])
    """

    n_nodes: int
    arcs: Any = field(repr=False)
    source: int
    target: int

    def __post_init__(self) -> None:
        arcs = np.asarray(to_numpy(self.arcs))
        if arcs.ndim != 2 or arcs.shape[1] != 2 or not np.issubdtype(arcs.dtype, np.integer):
            raise ValueError(
                f"Dijkstra takes arcs of shape (arcs, 2), integers; got shape {arcs.shape} of dtype {arcs.dtype}."
            )
        for node in (int(arcs.min(initial=0)), int(arcs.max(initial=0)), self.source, self.target):
            if not 0 <= node < self.n_nodes:
                raise ValueError(f"Dijkstra has nodes 0 to {self.n_nodes - 1}; got node {node}.")
        if self.source == self.target:
            raise ValueError(f"Dijkstra needs two ends; got source = target = {self.source}.")
        object.__setattr__(self, "arcs", arcs.astype(np.int64))

    @property
    def n(self) -> int:
        """Number of arcs."""
        return self.arcs.shape[0]

    @cached_property
    def _outgoing(self) -> tuple[NDArray[np.int64], ...]:
        """Where the arcs that leave each node begin in a list sorted by tail, that list, and tails and heads of the arcs."""
        tails, heads = np.ascontiguousarray(self.arcs.T)
        first = np.zeros(self.n_nodes + 1, dtype=np.int64)
        np.cumsum(np.bincount(tails, minlength=self.n_nodes), out=first[1:])
        return first, np.argsort(tails, kind="stable"), tails, heads

    def solve(self, costs: NDArray[np.floating]) -> NDArray[np.floating]:
        """The paths for finite costs `(B, n)`, none of them negative."""
        require_numba("Dijkstra")
        from implicit_l2o.decoders._dijkstra_kernel import dijkstra

        if costs.size and costs.min() < 0:
            sample, arc = np.argwhere(costs < 0)[0]
            raise ValueError(
                f"Dijkstra needs costs >= 0; got {float(costs[sample, arc])} at arc {arc} of sample {sample}. Predict them "
                "through a softplus or an absolute value, or clamp them."
            )
        paths = np.zeros_like(costs)
        if dijkstra(costs, *self._outgoing, self.source, self.target, paths) < len(costs):
            raise ValueError(f"Dijkstra: no path leads from node {self.source} to node {self.target}.")
        return paths
