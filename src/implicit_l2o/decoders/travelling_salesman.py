"""Symmetric travelling salesmen, exactly."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from implicit_l2o._numba import require_numba
from implicit_l2o.decoders.base import AbstractDecoder


@final
@dataclass(frozen=True)
class TravellingSalesman(AbstractDecoder):
    """The cheapest closed tour through all cities, `argmin {<c, x> : x a tour}`, for costs of either sign.

    Branch and bound: 1-trees bound the tours of a subproblem from below, at prices of the cities that a subgradient method
    raises; edges that no better tour can use are excluded by their exchange costs. The time is exponential at worst; on
    PyEPO's costs it is .2 milliseconds a sample at 20 cities and 5 at 50. Tours whose costs differ by less than 1e-10 of
    the costs' spread, an edge, count as equally good.

    Args:
        n_cities: at least 3. Its edges `(i, j)`, `i < j`, are numbered row by row: `(0, 1), (0, 2), ..., (1, 2), ...`.
        max_nodes: subproblems a sample.

    Raises:
        ValueError: fewer than 3 cities, or no subproblem.
        ModuleNotFoundError: numba is not installed, when the decoder is called.
        RuntimeError: a sample takes more subproblems than `max_nodes`, when the decoder is called.

    Source: M. Held and R. M. Karp, The traveling-salesman problem and minimum spanning trees II, Math. Prog. 1 (1971);
    T. Volgenant and R. Jonker, A branch and bound algorithm for the symmetric traveling salesman problem based on the
    1-tree relaxation, EJOR 9 (1982).

    Example:
        >>> import torch
        >>> from implicit_l2o.decoders import TravellingSalesman
        >>> TravellingSalesman(4)(torch.tensor([[1.0, 5.0, 1.0, 1.0, 5.0, 1.0]]))  # along 0, 1, 2, 3
        tensor([[1., 0., 1., 1., 0., 1.]])
    """

    n_cities: int
    max_nodes: int = field(default=1_000_000, kw_only=True)

    def __post_init__(self) -> None:
        if self.n_cities < 3:
            raise ValueError(f"TravellingSalesman needs n_cities >= 3; got n_cities={self.n_cities}.")
        if self.max_nodes < 1:
            raise ValueError(f"TravellingSalesman needs max_nodes >= 1; got max_nodes={self.max_nodes}.")

    @property
    def n(self) -> int:
        """Number of edges, `n_cities (n_cities - 1) / 2`."""
        return self.n_cities * (self.n_cities - 1) // 2

    @cached_property
    def edges(self) -> Int[np.ndarray, "edges 2"]:
        """The two cities of every edge, the lower number first."""
        return np.stack(np.triu_indices(self.n_cities, 1), axis=1)

    def solve(self, costs: NDArray[np.floating]) -> NDArray[np.floating]:
        """The tours for finite costs `(B, edges)`."""
        require_numba("TravellingSalesman")
        from implicit_l2o.decoders._tour_kernel import tours

        edges = np.zeros_like(costs)
        exponent = np.frexp(np.abs(costs).max(axis=1, initial=0.0, keepdims=True))[1]
        scaled = np.ldexp(costs.astype(np.float64), -exponent)  # sums of costs near the largest number may overflow
        solved = tours(scaled, self.n_cities, edges, self.max_nodes)
        if solved < len(costs):
            raise RuntimeError(
                f"TravellingSalesman: sample {solved} takes more than max_nodes={self.max_nodes} subproblems. Near-equal "
                "tours are the usual reason; allow more."
            )
        return edges
