"""The solution of a regularised program to 1e-10, with its multipliers and its exact derivative on the support.

The compiled methods (`_exact.py`) run on the host in float64 and need numba; they are imported when first used.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o._numba import require_numba
from implicit_l2o.linear_program.normal_equations import normal_equations
from implicit_l2o.linear_program.program import LinearProgram
from implicit_l2o.linear_program.standard_form import as_csr

_ACCURACY = 1e-10  # of the optimality conditions, relative to the right-hand side; rows have norm one
_WARM_STEPS = 40


@dataclass(frozen=True, eq=False)
class Numbers:
    """One call's data as the compiled methods take them: right-hand sides and bounds have one row, or one a sample.

    Attributes:
        b: right-hand sides of the rows scaled to norm one.
        c: costs.
        lower: bounds.
        upper: bounds.
        gamma: of the quadratic term.
    """

    b: np.ndarray
    c: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    gamma: float

    @property
    def arguments(self) -> tuple[Any, ...]:
        """In the order of the compiled methods."""
        return self.b, self.c, self.lower, self.upper, self.gamma


@dataclass(frozen=True, eq=False)
class DualPoint:
    """Solutions with the multipliers of their rows, in float64 on the host.

    Attributes:
        x: `(B, n)`, the minimisers for these multipliers.
        y: `(B, m)` multipliers of the rows scaled to norm one, `<= 0` of the inequalities.
        gap: `(B, m)` what the scaled `b - A x` is.
        price: `(B, n)` `A^T y`.
        ended: `(B,)` whether the optimality conditions hold to 1e-10.
    """

    x: Float[np.ndarray, "B n"]
    y: Float[np.ndarray, "B m"]
    gap: Float[np.ndarray, "B m"]
    price: Float[np.ndarray, "B n"]
    ended: Bool[np.ndarray, " B"]


class ExactSolver:
    """Solves a program for batches of costs to 1e-10, and differentiates the solutions.

    Args:
        lp: the program; it has rows.

    Raises:
        ModuleNotFoundError: numba is not installed.
    """

    def __init__(self, lp: LinearProgram) -> None:
        import scipy.sparse as sp

        require_numba("LPLayer(polish=True)")
        blocks = [as_csr(A) for A in (lp.A_eq, lp.A_ub) if A is not None]
        self.rows, self.norms = normal_equations(sp.vstack(blocks), lp.m_eq)
        self._lp, self._set = lp, self._feasible_set(lp)

    def numbers(self, lp: LinearProgram, cost: Float[Tensor, "B n"], gamma: float) -> Numbers:
        """The data in compiled form, of the program or of one that differs from it in right-hand sides."""
        b, lower, upper = self._set if lp is self._lp else self._feasible_set(lp)
        return Numbers(b, host(cost), lower, upper, gamma)

    def _feasible_set(self, lp: LinearProgram) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        b = [np.atleast_2d(host(b)) for b in (lp.b_eq, lp.b_ub) if b is not None]
        batch = max(len(part) for part in b)
        joined = np.concatenate([np.broadcast_to(part, (batch, part.shape[1])) for part in b], axis=1)
        lower, upper = (_bounds(bound, lp.n) for bound in (lp.lower, lp.upper))
        return joined / self.norms, lower, upper

    def solve(self, numbers: Numbers, y0: Float[np.ndarray, "B m"] | None = None) -> DualPoint:
        """The solutions, from the multipliers `y0` of scaled rows where they are given."""
        from implicit_l2o.linear_program._exact import measure, solve_cold, solve_warm

        batch = len(numbers.c)
        x, y = np.zeros((batch, self.rows.n)), np.zeros((batch, self.rows.m))
        steps = np.full(batch, -1)
        finite = np.isfinite(numbers.c).all(1) & np.isfinite(numbers.b).all(1)
        tolerance = np.broadcast_to(_ACCURACY * np.abs(numbers.b).max(1).clip(1e-3), batch).copy()
        if y0 is not None:
            y[:] = y0
            solve_warm(self.rows, *numbers.arguments, tolerance, _WARM_STEPS, x, y, steps)
        wanted = finite & (steps < 0)
        if wanted.any():
            solve_cold(self.rows, *numbers.arguments, tolerance, wanted, x, y, steps)
        gap, price = np.empty_like(y), np.empty_like(x)
        measure(self.rows, numbers.b, x, y, gap, price)
        return DualPoint(x, y, gap, price, finite & (steps >= 0))

    def pull_back(
        self, numbers: Numbers, y: Float[np.ndarray, "B m"], v: Float[np.ndarray, "B n"]
    ) -> tuple[Float[np.ndarray, "B n"], Float[np.ndarray, "B m"]]:
        """The cotangents of the costs and of the right-hand sides (as given, unscaled) for those of the solutions."""
        from implicit_l2o.linear_program._exact import pull_back_batch

        in_cost, in_rhs = np.zeros_like(numbers.c), np.zeros((len(numbers.c), self.rows.m))
        pull_back_batch(self.rows, *numbers.arguments, y, v, in_cost, in_rhs)
        return in_cost, in_rhs / self.norms


def host(x: Tensor) -> Float[np.ndarray, "..."]:
    """A contiguous float64 array of a tensor's values."""
    return np.ascontiguousarray(x.detach().to(device="cpu", dtype=torch.float64).numpy())


def _bounds(bound: float | Tensor, n: int) -> np.ndarray:
    rows = np.atleast_2d(host(torch.as_tensor(bound)))
    return np.ascontiguousarray(np.broadcast_to(rows, (len(rows), n)))
