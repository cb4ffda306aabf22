"""0/1 knapsacks with one or several constraints, exactly."""

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from implicit_l2o._numba import require_numba
from implicit_l2o.decoders.base import AbstractDecoder, to_numpy

_ROUNDING = 1e-7  # of a capacity: weights that came through float32 still fill it to the brim


@final
@dataclass(frozen=True, eq=False)
class Knapsack(AbstractDecoder):
    """The most valuable choice of items, `argmin {<c, x> : W x <= capacity, x in {0, 1}^n}`; costs are minus the values.

    Branch and bound. Multipliers of the constraints give a bound for the whole problem, which leaves few items in question,
    and one surrogate constraint that bounds every node. The time is exponential at worst; it is well below a millisecond a
    sample where few items fit, as in PyEPO's benchmark (two constraints, at most six of up to 750 items).

    Args:
        weights: `W`, `(m, n)`, not negative, in the units of the capacities.
        capacity: `(m,)`, not negative. A choice may exceed one by `1e-7` of it, for the rounding of weights and their sum.
        max_nodes: the search of a sample that visits more is given up; about ten million are visited in a second.

    Raises:
        RuntimeError: a search was given up, when the decoder is called.
        ValueError: shapes that do not fit, or an entry that is negative or not finite.
        ModuleNotFoundError: numba is not installed, when the decoder is called.

    Source: H. Kellerer, U. Pferschy and D. Pisinger, Knapsack Problems, Springer (2004), chapter 9.

    Example:
        >>> import torch
        >>> from implicit_l2o.decoders import Knapsack
        >>> Knapsack(torch.tensor([[3.0, 4.0, 5.0]]), torch.tensor([7.0]))(-torch.tensor([[4.0, 5.0, 8.0]]))
        tensor([[1., 1., 0.]])
    """

    weights: Any = field(repr=False)
    capacity: Any = field(repr=False)
    max_nodes: int = field(default=100_000_000, kw_only=True)

    def __post_init__(self) -> None:
        weights = np.array(to_numpy(self.weights), dtype=np.float64, order="C")
        capacity = np.array(to_numpy(self.capacity), dtype=np.float64)
        if weights.ndim != 2 or weights.size == 0 or capacity.shape != weights.shape[:1]:
            raise ValueError(
                f"Knapsack takes weights of shape (m, n) and capacity of (m,); got {weights.shape} and {capacity.shape}."
            )
        for name, array in (("weights", weights), ("capacity", capacity)):
            bad = array[~(np.isfinite(array) & (array >= 0))]
            if bad.size:
                raise ValueError(f"Knapsack needs finite {name} >= 0; got {bad[0]}.")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "capacity", capacity)

    @property
    def n(self) -> int:
        """Number of items."""
        return self.weights.shape[1]

    def solve(self, costs: NDArray[np.floating]) -> NDArray[np.floating]:
        """The choices for finite costs `(B, n)`."""
        require_numba("Knapsack")
        from implicit_l2o.decoders._knapsack_kernel import knapsacks

        items = np.zeros_like(costs)
        solved = knapsacks(costs, self.weights, self.capacity * (1 + _ROUNDING), items, self.max_nodes)
        if solved < len(costs):
            raise RuntimeError(
                f"Knapsack: sample {solved} was not solved within max_nodes={self.max_nodes}; allow more, or use MILP."
            )
        return items
