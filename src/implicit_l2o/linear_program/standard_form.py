"""A linear program as Davis-Yin takes it: a box and an affine set, over the variables followed by one slack a row of `A_ub`.

    A_eq x = b_eq,   A_ub x + D s = b_ub,   lower <= x <= upper,   s >= 0,      D = diag of the row norms of A_ub

Bounds stay bounds: a clamp costs one pass over `x`, while a slack variable for each would double the problem.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.linear_program.program import LinearProgram
from implicit_l2o.operators.affine import AffineSet, affine_factor
from implicit_l2o.operators.base import AbstractSet, Scalar
from implicit_l2o.operators.box import Box
from implicit_l2o.operators.matrix import Matrix
from implicit_l2o.operators.quadratic_cost import QuadraticCost
from implicit_l2o.problem import Problem


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows over variables and slacks, as a SciPy matrix; made once for a program.

    Attributes:
        matrix: `[A_eq 0; A_ub D]`, CSR, None without rows.
        slack_scale: the diagonal of `D`, `(m_ub,)`.
    """

    matrix: Any
    slack_scale: np.ndarray

    @classmethod
    def of(cls, lp: LinearProgram) -> "Rows":
        """Stack the blocks of a program."""
        import scipy.sparse as sp

        blocks, scale = [], np.ones(lp.m_ub)
        if lp.A_eq is not None:
            blocks.append(sp.hstack([as_csr(lp.A_eq), sp.csr_array((lp.m_eq, lp.m_ub))]))
        if lp.A_ub is not None:
            rows = as_csr(lp.A_ub)
            norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
            scale = np.where(norms == 0, 1.0, norms)
            blocks.append(sp.hstack([rows, sp.diags_array(scale)]))
        return cls(sp.vstack(blocks).tocsr() if blocks else None, scale)


@dataclass(frozen=True, eq=False)
class StandardForm:
    """The sets of a program on one device and in one dtype, factored once.

    Attributes:
        lp: the program.
        rows: its rows with slacks.
        bounds: the box over `x`.
        box: the box over `(x, s)`.
        affine: the rows over `(x, s)`; None without rows.
        inequalities: `A_ub` as an operator, for measures of `x` alone.
    """

    lp: LinearProgram
    rows: Rows
    bounds: Box
    box: Box
    affine: AffineSet | None
    inequalities: Matrix | None

    @classmethod
    def of(cls, lp: LinearProgram, rows: Rows, like: Tensor) -> "StandardForm":
        """Factor the rows, in the dtype and on the device of `like`."""
        bounds = Box(*(b.to(like) if isinstance(b, Tensor) else b for b in (lp.lower, lp.upper)))
        affine = None
        if rows.matrix is not None:
            factor = affine_factor(rows.matrix, dtype=like.dtype, device=like.device)
            affine = AffineSet(factor, _join(lp, like))
        ub = None if lp.A_ub is None else Matrix(_matrix(lp.A_ub, like))
        return cls(lp, rows, bounds, _with_slacks(bounds, lp, like), affine, ub)

    @property
    def rank(self) -> int:
        """Of the rows."""
        return 0 if self.affine is None else self.affine.factor.rank

    @property
    def learns_bounds(self) -> bool:
        """Whether a bound carries a gradient."""
        return any(
            isinstance(bound, Tensor) and bound.requires_grad for bound in (self.bounds.lower, self.bounds.upper)
        )

    def with_rhs(self, lp: LinearProgram, like: Tensor) -> "StandardForm":
        """The same factors for a program that differs in `b_eq` and `b_ub`, which may carry gradients."""
        affine = None if self.affine is None else self.affine.with_rhs(_join(lp, like))
        return StandardForm(lp, self.rows, self.bounds, self.box, affine, self.inequalities)

    def lift(self, cost: Float[Tensor, "B n"]) -> Float[Tensor, "B n_slacks"]:
        """The costs, zero on the slacks."""
        return torch.nn.functional.pad(cost, (0, self.lp.m_ub)) if self.lp.m_ub else cost

    def problem(self, cost: Float[Tensor, "B n"], gamma: float) -> Problem:
        """`min c.x + gamma |x|^2 / 2` over `(x, s)`; the slacks cost nothing."""
        diagonal: Scalar = gamma
        if self.lp.m_ub and gamma > 0:
            ones = torch.ones(self.lp.n, dtype=cost.dtype, device=cost.device)
            diagonal = gamma * torch.nn.functional.pad(ones, (0, self.lp.m_ub))
        return Problem(F=QuadraticCost(linear=self.lift(cost), diagonal=diagonal), g=self.box, h=self.affine)

    def stated(self, cost: Float[Tensor, "B n"], gamma: float) -> Problem:
        """The same problem over `x` alone, as the user stated it: the inequalities are `l(K x)`."""
        lp = self.lp
        equations: AbstractSet | None = self.affine
        if lp.m_ub:
            equations = None
            if lp.A_eq is not None:
                equations = AffineSet(_matrix(lp.A_eq, cost), lp.b_eq.to(cost))
        l = None if self.inequalities is None else Box(upper=lp.b_ub.to(cost))
        return Problem(
            F=QuadraticCost(linear=cost, diagonal=gamma), g=self.bounds, h=equations, K=self.inequalities, l=l
        )


def as_csr(A: Any) -> Any:
    """A matrix of a program as SciPy CSR in float64."""
    import scipy.sparse as sp

    return sp.csr_array(A.detach().double().cpu().numpy() if isinstance(A, Tensor) else A)


def _matrix(A: Any, like: Tensor) -> Any:
    """A matrix of a program as the operators take it, in the dtype of `like`."""
    return A.to(like) if isinstance(A, Tensor) else A.astype(np.float64 if like.dtype == torch.float64 else np.float32)


def _join(lp: LinearProgram, like: Tensor) -> Tensor:
    """`(b_eq, b_ub)`, shared or one a sample."""
    parts = [b.to(like) for b in (lp.b_eq, lp.b_ub) if b is not None]
    batch = torch.broadcast_shapes(*(b.shape[:-1] for b in parts))
    return torch.cat([b.expand(*batch, b.shape[-1]) for b in parts], dim=-1)


def _with_slacks(bounds: Box, lp: LinearProgram, like: Tensor) -> Box:
    if not lp.m_ub:
        return bounds
    sides = []
    for bound, of_slack in ((bounds.lower, 0.0), (bounds.upper, torch.inf)):
        bound = torch.as_tensor(bound, dtype=like.dtype, device=like.device)
        bound = bound.expand(*bound.shape[:-1], lp.n)
        sides.append(torch.nn.functional.pad(bound, (0, lp.m_ub), value=of_slack))
    return Box(*sides)
