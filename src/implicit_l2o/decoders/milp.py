"""Mixed-integer linear programs by HiGHS."""

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from implicit_l2o.decoders.base import AbstractDecoder, to_numpy
from implicit_l2o.linear_program import LinearProgram

_LIMIT, _INFEASIBLE, _UNBOUNDED, _UNCLEAR = 1, 2, 3, 4  # statuses of scipy.optimize.milp


@final
@dataclass(frozen=True, eq=False)
class MILP(AbstractDecoder):
    """`argmin {<c, x> : x in P, x_j integer for j in J}` for the polyhedron `P` of a linear program, by HiGHS.

    One solve a sample, by branch and cut; to the optimum, with a relative gap of 0. With `integer=False` the answer is a
    vertex of the relaxation, where there is one. It needs no extra: SciPy brings HiGHS.

    Args:
        lp: the polyhedron; a right-hand side or a bound that differs by sample has the batch's size.
        integer: True for every variable, False for none, or a mask `(n,)`.
        time_limit: seconds a sample; None for no limit.

    Raises:
        ValueError: the mask has another shape. When the decoder is called: a sample is infeasible or unbounded, or its
            right-hand side has another batch size.
        TimeoutError: the time limit was met.

    Source: Q. Huangfu and J. A. J. Hall, Parallelizing the dual revised simplex method, Math. Prog. Comp. 10 (2018).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.decoders import MILP
        >>> lp = il2o.LinearProgram(A_ub=torch.tensor([[3.0, 4.0, 5.0]]), b_ub=torch.tensor([7.0]), upper=1.0)
        >>> MILP(lp)(-torch.tensor([[4.0, 5.0, 8.0]]))
        tensor([[1., 1., 0.]])
    """

    lp: LinearProgram
    integer: Any = True
    time_limit: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        mask = np.asarray(to_numpy(self.integer), dtype=bool)
        if mask.shape not in ((), (self.lp.n,)):
            raise ValueError(f"MILP takes integer=True, False or a mask of shape ({self.lp.n},); got {mask.shape}.")
        object.__setattr__(self, "integer", np.broadcast_to(mask, (self.lp.n,)).copy())

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.lp.n

    @cached_property
    def _rows(self) -> Any:
        """The equations above the inequalities, sparse; None where there are none."""
        from scipy.sparse import csc_matrix, vstack

        blocks = [to_numpy(A) for A in (self.lp.A_eq, self.lp.A_ub) if A is not None]
        return vstack([csc_matrix(A, dtype=np.float64) for A in blocks], format="csc") if blocks else None

    def solve(self, costs: NDArray[np.floating]) -> NDArray[np.floating]:
        """The solutions for finite costs `(B, n)`; integer variables are rounded to exact integers."""
        x = np.empty_like(costs)
        for sample, cost in enumerate(costs):
            x[sample] = self._solve_one(cost, sample, len(costs))
        return x

    def _solve_one(self, cost: NDArray[np.floating], sample: int, batch: int) -> NDArray[np.floating]:
        from scipy.optimize import Bounds, LinearConstraint, milp

        b_eq, b_ub = (_row(b, sample, batch, None) for b in (self.lp.b_eq, self.lp.b_ub))
        lower, upper = (_row(b, sample, batch, self.n) for b in (self.lp.lower, self.lp.upper))
        bounds = Bounds(lower, upper)  # pyright: ignore[reportArgumentType]  # arrays are what it is for
        constraints = []
        if self._rows is not None:
            below = np.concatenate([b_eq, np.full(len(b_ub), -np.inf)])
            above = np.concatenate([b_eq, b_ub])
            constraints = [LinearConstraint(self._rows, below, above)]  # pyright: ignore[reportArgumentType]
        options: dict[str, Any] = {"mip_rel_gap": 0.0}
        if self.time_limit is not None:
            options["time_limit"] = self.time_limit
        solve = partial(
            milp,
            integrality=self.integer.astype(int),
            bounds=bounds,
            constraints=constraints,
            options=options,
        )
        found = solve(_unit(cost.astype(np.float64)))
        status = found.status
        if status == _UNCLEAR:  # HiGHS may know that there is no solution without knowing why; without a cost it does
            status = _UNBOUNDED if solve(np.zeros(self.n)).status == 0 else _INFEASIBLE
        if status == _INFEASIBLE:
            raise ValueError(f"MILP: sample {sample} is infeasible; no x meets its constraints.")
        if status == _UNBOUNDED:
            raise ValueError(f"MILP: sample {sample} is unbounded; its cost falls forever. Give the variables bounds.")
        if status == _LIMIT:
            raise TimeoutError(f"MILP: sample {sample} was not solved in {self.time_limit} s.")
        return np.where(self.integer, np.round(found.x), found.x)


def _unit(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cost scaled to unit size, by a power of two: to HiGHS a tiny cost is zero and a huge one infinite."""
    return np.ldexp(cost, -np.frexp(np.abs(cost).max(initial=0.0))[1])


def _row(value: Any, sample: int, batch: int, length: int | None) -> NDArray[np.float64]:
    """A right-hand side or bound of one sample, as a vector; `length` for what may be a number."""
    if value is None:
        return np.empty(0)
    array = np.asarray(to_numpy(value), dtype=np.float64)
    if array.ndim == 2:
        if len(array) not in (1, batch):
            raise ValueError(f"MILP: the program has {len(array)} right-hand sides or bounds; got {batch} costs.")
        array = array[sample % len(array)]
    return np.asarray(np.broadcast_to(array, (length,)) if length is not None else array)
