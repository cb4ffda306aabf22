"""The solution of a linear program as a layer: predicted costs in, `argmin c.x + gamma |x|^2 / 2` over the polyhedron out.

Source: D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with Quadratic
Regularization and Davis-Yin Splitting, TMLR (2024).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o._solution import Solution
from implicit_l2o.backward.base import AbstractBackward
from implicit_l2o.backward.jfb import JFB
from implicit_l2o.certificates.base import Inference
from implicit_l2o.layer import OnFailure, solve
from implicit_l2o.linear_program.program import LinearProgram
from implicit_l2o.linear_program.step import RELAXATION, automatic_step
from implicit_l2o.operators.affine import AffineSet, affine_factor
from implicit_l2o.operators.box import Box
from implicit_l2o.operators.free import Free
from implicit_l2o.operators.quadratic_cost import QuadraticCost
from implicit_l2o.problem import Problem
from implicit_l2o.solvers.base import Stopping
from implicit_l2o.solvers.krasnoselskii_mann import KrasnoselskiiMann
from implicit_l2o.splittings.davis_yin import DavisYin


class LPLayer(nn.Module):
    """`layer(c) = argmin { c.x + gamma |x|^2 / 2 : A_eq x = b_eq, A_ub x <= b_ub, lower <= x <= upper }`, for a batch of `c`.

    Args:
        lp: the polyhedron.
        gamma: of the quadratic term; > 0 makes the answer a differentiable function of the costs.
        tolerance: absolute, on `|T(z) - z|`, which bounds the distance of `x` to the equations, in units of `x`; None takes
            1e-6 in float64 and 1e-4 in float32.
        max_steps: most iterations a sample may take.
        step: of Davis-Yin, in `(0, 2 / gamma)`; None chooses one for each sample.
        relaxation: of the iteration.
        backward: None takes `JFB()`.
        on_failure: as in `solve`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> simplex = il2o.LinearProgram(A_eq=torch.ones(1, 3), b_eq=torch.ones(1))
        >>> layer = il2o.LPLayer(simplex, gamma=1.0)
        >>> layer(torch.tensor([[0.0, 0.5, 2.0]])).x.round(decimals=3)
        tensor([[0.7500, 0.2500, 0.0000]])
    """

    def __init__(
        self,
        lp: LinearProgram,
        *,
        gamma: float = 1.0,
        tolerance: float | None = None,
        max_steps: int = 5000,
        step: float | None = None,
        relaxation: float = RELAXATION,
        backward: AbstractBackward | None = None,
        on_failure: OnFailure = "warn",
    ) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"LPLayer needs gamma >= 0; got gamma={gamma}.")
        self.lp = lp
        self.gamma = gamma
        self.step = step
        self.backward = JFB() if backward is None else backward
        self.solver = KrasnoselskiiMann(Stopping(atol=tolerance, rtol=0.0, max_steps=max_steps), relaxation=relaxation)
        self.on_failure: OnFailure = on_failure
        self._rows = _rows_with_slacks(lp)
        self._sets: dict[tuple[torch.device, torch.dtype], Any] = {}

    def forward(self, cost: Float[Tensor, "B n"]) -> Solution:
        """The solution for every cost vector of the batch."""
        if cost.ndim != 2 or cost.shape[1] != self.lp.n:
            raise ValueError(f"LPLayer takes costs of shape (B, {self.lp.n}); got {tuple(cost.shape)}.")
        splitting = self._splitting(cost)
        start = cost.new_zeros(len(cost), self.lp.n + self.lp.m_ub)
        solution = solve(splitting, start, solver=self.solver, backward=self.backward, on_failure=self.on_failure)
        return replace(solution, x=solution.x[:, : self.lp.n])

    def inference(self, cost: Float[Tensor, "B n"]) -> Inference:
        """The solution together with the problem and the costs (as `data`), for losses and measures."""
        problem = Problem(F=QuadraticCost(linear=cost, diagonal=self.gamma), g=self._box(cost), h=None)
        return Inference.of(self(cost), problem=problem, data=cost)

    def _splitting(self, cost: Tensor) -> DavisYin:
        lp = self.lp
        box, affine = self._constraints(cost)
        padded = torch.nn.functional.pad(cost, (0, lp.m_ub)) if lp.m_ub else cost
        diagonal: Any = self.gamma
        if lp.m_ub:
            diagonal = torch.full((lp.n + lp.m_ub,), self.gamma, dtype=cost.dtype, device=cost.device)
            diagonal[lp.n :] = 0.0
        step = self.step
        if step is None:
            step = automatic_step(cost, self.gamma, getattr(getattr(affine, "factor", None), "rank", 1))
        return DavisYin(Problem(F=QuadraticCost(linear=padded, diagonal=diagonal), g=box, h=affine), step=step)

    def _box(self, like: Tensor) -> Box:
        return Box(*(b.to(like) if isinstance(b, Tensor) else b for b in (self.lp.lower, self.lp.upper)))

    def _constraints(self, like: Tensor) -> tuple[Any, Any]:
        """The two sets over `(x, slacks)`, factored once for each device and dtype."""
        key = like.device, like.dtype
        if key not in self._sets:
            lp, box = self.lp, self._box(like)
            if lp.m_ub:
                lower, upper = (
                    torch.as_tensor(b, dtype=like.dtype, device=like.device) for b in (box.lower, box.upper)
                )
                shape = (*torch.broadcast_shapes(lower.shape, upper.shape, (lp.n,))[:-1], lp.n)
                box = Box(
                    nn.functional.pad(lower.expand(shape), (0, lp.m_ub), value=0.0),
                    nn.functional.pad(upper.expand(shape), (0, lp.m_ub), value=torch.inf),
                )
            affine: Any = Free()
            if self._rows is not None:
                matrix, rhs = self._rows
                affine = AffineSet(affine_factor(matrix, dtype=like.dtype, device=like.device), rhs.to(like))
            self._sets[key] = box, affine
        return self._sets[key]


def _rows_with_slacks(lp: LinearProgram) -> tuple[Any, Tensor] | None:
    """`[A_eq 0; A_ub D]` and its right-hand side, `D` the norms of the rows; sparse, or None without rows."""
    import scipy.sparse as sp

    blocks, rhs = [], []
    if lp.A_eq is not None:
        blocks.append(sp.hstack([_csr(lp.A_eq), sp.csr_array((lp.m_eq, lp.m_ub))]))
        rhs.append(lp.b_eq)
    if lp.A_ub is not None:
        rows = _csr(lp.A_ub)
        norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        blocks.append(sp.hstack([rows, sp.diags_array(np.where(norms == 0, 1.0, norms))]))
        rhs.append(lp.b_ub)
    if not blocks:
        return None
    batch = torch.broadcast_shapes(*(b.shape[:-1] for b in rhs))
    return sp.vstack(blocks).tocsr(), torch.cat([b.double().expand(*batch, b.shape[-1]) for b in rhs], dim=-1)


def _csr(A: Any) -> Any:
    import scipy.sparse as sp

    return sp.csr_array(A.detach().double().cpu().numpy() if isinstance(A, Tensor) else A)
