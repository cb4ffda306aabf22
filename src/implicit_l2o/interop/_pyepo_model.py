"""A PyEPO model over a linear program. It imports PyEPO, so it is itself imported when it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from pyepo import EPO  # pyright: ignore[reportMissingImports]
from pyepo.model.opt import optModel  # pyright: ignore[reportMissingImports]
from pyepo.utils import costToNumpy  # pyright: ignore[reportMissingImports]
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.decoders import MILP

_AHEAD = 1024  # rows solved at once


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive rows of a cost matrix, solved."""

    matrix: Any
    first: int
    costs: NDArray[np.floating]
    solutions: NDArray[np.floating]
    objectives: NDArray[np.float64]


@final
class LinearProgramModel(optModel):
    """The model that `interop.pyepo.opt_model` describes.

    PyEPO hands a model one cost vector after the other, `model.setObj(costs[i]); model.solve()`. Each is a view of a row
    of the batch's matrix. So when the first row of a matrix is asked for, or the one after those already solved, the
    model solves the rows that follow in one call. A row is answered from memory only if its costs are equal to those
    solved, so what is solved ahead decides about time and never about an answer.
    """

    def __init__(
        self, lp: il2o.LinearProgram, decoder: Callable[[Tensor], Tensor] | None = None, maximize: bool = False
    ) -> None:
        self.lp = lp
        self.decoder = decoder
        self.maximize = maximize
        self.modelSense = EPO.MAXIMIZE if maximize else EPO.MINIMIZE
        self._solver = MILP(lp, integer=False) if decoder is None else decoder
        self._cost: NDArray[np.floating] | None = None
        self._place: tuple[Any, int] | None = None
        self._block: _Block | None = None
        super().__init__()

    def _getModel(self) -> tuple[il2o.LinearProgram, range]:
        return self.lp, range(self.lp.n)

    @property
    def num_cost(self) -> int:
        """Number of variables, each of which has a cost."""
        return self.lp.n

    def setObj(self, c: Any) -> None:
        """Take one cost vector `(n,)`."""
        cost = costToNumpy(c)
        if cost.shape != (self.lp.n,):
            raise ValueError(f"opt_model has {self.lp.n} variables; got costs of shape {tuple(cost.shape)}.")
        self._cost, self._place = cost, _row_of(c)

    def solve(self) -> tuple[NDArray[np.floating], float]:
        """The optimal decision and its objective for the costs of `setObj`."""
        if self._cost is None:
            raise RuntimeError("opt_model has no costs yet: call setObj(c) before solve().")
        block, row = self._block, self._row_of_block()
        if block is None or row is None:
            block, row = self._solve_block(self._cost), 0
        return block.solutions[row].copy(), float(block.objectives[row])

    def addConstr(self, coefs: Any, rhs: float) -> "LinearProgramModel":
        """A new model with the constraint `<coefs, x> <= rhs` as well; only where no decoder was given."""
        if self.decoder is not None:
            raise ValueError(
                "opt_model cannot add a constraint to its decoder; make the decoder of the larger problem."
            )
        row = torch.as_tensor(coefs, dtype=torch.float64).reshape(1, -1)
        right = torch.tensor([float(rhs)], dtype=torch.float64)
        if self.lp.A_ub is not None:
            old = self.lp.A_ub if isinstance(self.lp.A_ub, Tensor) else torch.from_numpy(self.lp.A_ub.toarray())
            row, right = torch.cat([old.double(), row]), torch.cat([self.lp.b_ub.double(), right])
        lp = il2o.LinearProgram(
            A_eq=self.lp.A_eq, b_eq=self.lp.b_eq, A_ub=row, b_ub=right, lower=self.lp.lower, upper=self.lp.upper
        )
        return LinearProgramModel(lp, None, self.maximize)

    def relax(self) -> "LinearProgramModel":
        """The model of the linear program itself, without its decoder."""
        return LinearProgramModel(self.lp, None, self.maximize)

    def _row_of_block(self) -> int | None:
        """Where the solved block holds the answer; None where it does not."""
        if self._place is None or self._block is None or self._cost is None:
            return None
        matrix, index = self._place
        row = index - self._block.first
        known = matrix is self._block.matrix and 0 <= row < len(self._block.costs)
        return row if known and np.array_equal(self._block.costs[row], self._cost) else None

    def _solve_block(self, cost: NDArray[np.floating]) -> _Block:
        """Solve the present costs, and the rows after them where they will be asked for."""
        costs, matrix, first = cost[None], None, 0
        if self._place is not None:
            matrix, first = self._place
            before = self._block
            follows = before is not None and before.matrix is matrix and first == before.first + len(before.costs)
            if first == 0 or follows:
                costs = np.array(costToNumpy(matrix[first : first + _AHEAD]))  # a copy: the matrix may change
        values = torch.from_numpy(-costs if self.maximize else np.ascontiguousarray(costs))
        with torch.no_grad():
            solutions = self._solver(values).detach().cpu().numpy()
        objectives = (costs.astype(np.float64) * solutions).sum(1)
        self._block = _Block(matrix, first, costs, solutions, objectives)
        return self._block


def _row_of(c: Any) -> tuple[Any, int] | None:
    """The matrix whose row the vector is a view of, and which row; None where it is none."""
    matrix: Any = c._base if isinstance(c, Tensor) else getattr(c, "base", None)
    if not isinstance(matrix, Tensor | np.ndarray) or type(matrix) is not type(c):
        return None
    fits = matrix.ndim == 2 and matrix.shape[1] == c.shape[0] and matrix.dtype == c.dtype
    if not (fits and _contiguous(matrix) and _contiguous(c)):
        return None
    index, rest = divmod(_pointer(c) - _pointer(matrix), matrix.shape[1] * c.itemsize)
    return None if rest or not 0 <= index < len(matrix) else (matrix, index)


def _contiguous(array: Any) -> bool:
    return array.is_contiguous() if isinstance(array, Tensor) else array.flags.c_contiguous


def _pointer(array: Any) -> int:
    return array.data_ptr() if isinstance(array, Tensor) else array.__array_interface__["data"][0]
