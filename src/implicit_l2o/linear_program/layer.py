"""The solution of a linear program as a layer: predicted costs in, `argmin c.x + gamma |x|^2 / 2` over the polyhedron out.

Source: D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with Quadratic
Regularization and Davis-Yin Splitting, TMLR (2024).
"""

import math
from dataclasses import replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o import _batch
from implicit_l2o._numba import require_numba
from implicit_l2o._solution import Solution, Status
from implicit_l2o.backward.base import AbstractBackward
from implicit_l2o.backward.implicit import Implicit
from implicit_l2o.backward.jfb import JFB
from implicit_l2o.certificates.base import Inference
from implicit_l2o.layer import OnFailure, report, solve
from implicit_l2o.linear_program.exact import ExactSolver
from implicit_l2o.linear_program.polish import ExactRule, JFBRule, Polished, distance, lift, multipliers
from implicit_l2o.linear_program.program import LinearProgram
from implicit_l2o.linear_program.standard_form import Rows, StandardForm
from implicit_l2o.linear_program.step import RELAXATION, automatic_step
from implicit_l2o.linear_program.unbounded import mark_unbounded
from implicit_l2o.linear_program.vertices import VertexWatch
from implicit_l2o.operators.affine_grid import GridFlows
from implicit_l2o.operators.base import Scalar
from implicit_l2o.solvers.base import Stopping
from implicit_l2o.solvers.krasnoselskii_mann import KrasnoselskiiMann
from implicit_l2o.splittings.davis_yin import DavisYin

# Where Davis-Yin only leads to the neighbourhood of a solution: Newton does the rest in one to three steps.
_LOOSE = Stopping(atol=0.0, rtol=3e-3, max_steps=500)


@final
class LPLayer(nn.Module):
    """`layer(c) = argmin { c.x + gamma |x|^2 / 2 : A_eq x = b_eq, A_ub x <= b_ub, lower <= x <= upper }`, batched.

    Davis-Yin alternates between the bounds, which the answer satisfies exactly, and the rows, which it satisfies up to the
    residual. The rows are factored once; the step follows from `gamma`, the scale of the costs and the rows.

    With `polish=True` a compiled Newton method on the dual makes the answer exact (optimality conditions to 1e-10), started
    from an interior point or, on grids, from a loose Davis-Yin solve. Davis-Yin then starts at that point, so that status,
    residual and backward mode mean the same; `Implicit()` becomes one sparse factorisation on the support of each solution.

    Args:
        lp: the polyhedron.
        gamma: of the quadratic term. With `gamma > 0` the answer is a continuous function of the costs, with a gradient
            almost everywhere; at 0 it is a vertex, and the gradient zero. With costs of order 1 a value near 1 trains best.
        normalize: divide the costs of each sample by their root mean square, so that `gamma` is relative to them and the
            answer does not depend on their unit.
        tolerance: on `|T(z) - z|`, which bounds the distance of `x` to the rows, in units of `x`; None takes 1e-6 in
            float64 and 1e-4 in float32.
        max_steps: most iterations a sample may take.
        step: of Davis-Yin, in `(0, 2 / gamma)`; None chooses one for each sample.
        relaxation: of the iteration, in `(0, 2 - step gamma / 2)`.
        backward: None takes `JFB()`.
        polish: solve exactly, on the host; needs numba (`implicit_l2o[exact]`) and `gamma > 0`.
        on_failure: as in `solve`.

    Raises:
        ValueError: an option is out of its range; the equations contradict each other.
        ModuleNotFoundError: `polish=True` without numba.

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
        normalize: bool = False,
        tolerance: float | None = None,
        max_steps: int = 5000,
        step: float | None = None,
        relaxation: float = RELAXATION,
        backward: AbstractBackward | None = None,
        polish: bool = False,
        on_failure: OnFailure = "warn",
    ) -> None:
        super().__init__()
        if not isinstance(lp, LinearProgram):
            raise TypeError(f"LPLayer takes a LinearProgram; got {type(lp).__name__}.")
        if polish:
            require_numba("LPLayer(polish=True)")
        self.lp = lp
        self.polish = polish
        self.gamma = gamma
        self.normalize = normalize
        self.step = step
        self.backward = JFB() if backward is None else backward
        self.solver = KrasnoselskiiMann(Stopping(atol=tolerance, rtol=0.0, max_steps=max_steps), relaxation=relaxation)
        self.on_failure: OnFailure = on_failure
        self._rows = Rows.of(lp)
        self._watch = VertexWatch()
        self._forms: dict[tuple[torch.device, torch.dtype], StandardForm] = {}
        self._exact: ExactSolver | None = None

    @property
    def gamma(self) -> float:
        """Of the quadratic term; it may be changed between forward passes, as a continuation does."""
        return self._gamma

    @gamma.setter
    def gamma(self, value: float) -> None:
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"LPLayer needs a finite gamma >= 0; got gamma={value}.")
        if self.polish and value == 0:
            raise ValueError("LPLayer needs gamma > 0 to polish; got gamma=0, where solutions are vertices.")
        self._gamma = float(value)

    def forward(
        self,
        cost: Float[Tensor, "B n"],
        *,
        b_eq: Float[Tensor, "*B m_eq"] | None = None,
        b_ub: Float[Tensor, "*B m_ub"] | None = None,
    ) -> Solution:
        """The solutions, differentiable in the costs and in right-hand sides that are given.

        Args:
            cost: one linear cost for each variable, per sample.
            b_eq: instead of the program's, `(m_eq,)` or `(B, m_eq)`.
            b_ub: likewise.
        """
        cost, form = self._prepare(cost, b_eq, b_ub)
        return self._solve(cost, form)

    def inference(self, cost: Float[Tensor, "B n"]) -> Inference:
        """The solutions together with the problem over `x`, for losses and measures; `data` are the costs as predicted."""
        scaled, form = self._prepare(cost, None, None)
        solution = self._solve(scaled, form)
        # The latent of slacks is no part of the problem over x.
        return Inference.of(solution, problem=form.stated(scaled, self.gamma), data=cost)

    def extra_repr(self) -> str:
        """Sizes and options, for `print`."""
        return (
            f"n={self.lp.n}, m_eq={self.lp.m_eq}, m_ub={self.lp.m_ub}, gamma={self.gamma:g}, backward={self.backward}"
        )

    def _prepare(self, cost: Tensor, b_eq: Tensor | None, b_ub: Tensor | None) -> tuple[Tensor, StandardForm]:
        if not isinstance(cost, Tensor) or cost.ndim != 2 or cost.shape[1] != self.lp.n:
            got = tuple(cost.shape) if isinstance(cost, Tensor) else type(cost).__name__
            raise ValueError(f"LPLayer takes costs of shape (B, {self.lp.n}); got {got}.")
        form = self._form(cost)
        if b_eq is not None or b_ub is not None:
            form = form.with_rhs(self.lp.with_rhs(b_eq=b_eq, b_ub=b_ub), cost)
        if self.normalize:
            scale = cost.square().mean(1, keepdim=True).sqrt()
            cost = cost / scale.clamp_min(torch.finfo(cost.dtype).tiny)
        return cost, form

    def _form(self, like: Tensor) -> StandardForm:
        """The factored sets in the dtype and on the device of `like`."""
        key = like.device, like.dtype
        if key not in self._forms:
            self._forms[key] = StandardForm.of(self.lp, self._rows, like)
        return self._forms[key]

    def _solve(self, cost: Tensor, form: StandardForm) -> Solution:
        with _batch.without_autocast(cost.device):
            solution = self._polished(cost, form) if self.polish and form.affine is not None else None
            if solution is None:
                solution = self._iterated(cost, form, torch.zeros_like(form.lift(cost.detach())))
        report(solution, self.solver, self.on_failure)
        if solution.x.requires_grad:
            self._watch(solution, form, self.gamma)
        return solution if solution.x.shape == cost.shape else replace(solution, x=solution.x[:, : self.lp.n])

    def _step(self, cost: Tensor, form: StandardForm) -> Scalar:
        return automatic_step(cost, self.gamma, form.rank) if self.step is None else self.step

    def _iterated(self, cost: Tensor, form: StandardForm, start: Tensor) -> Solution:
        """By Davis-Yin from a start over variables and slacks."""
        splitting = DavisYin(form.problem(cost, self.gamma), step=self._step(cost, form))
        solution = solve(splitting, start, solver=self.solver, backward=self.backward, on_failure="ignore")
        return mark_unbounded(solution, splitting, cost) if self.gamma == 0 else solution

    def _polished(self, cost: Tensor, form: StandardForm) -> Solution:
        """The exact solution; where it has no closed-form gradient, or a sample has none, as a start of the iteration."""
        if self._exact is None:
            self._exact = ExactSolver(self.lp)
        exact, step = self._exact, self._step(cost, form)
        numbers = exact.numbers(form.lp, cost, self.gamma)
        point = exact.solve(numbers, self._rough_multipliers(cost, form, exact))
        z = lift(point, form, cost, step, self.gamma)
        closed = isinstance(self.backward, JFB | Implicit) and not form.learns_bounds
        residual = distance(point, form, exact.norms, cost.detach())
        tolerance = self.solver.stopping.tolerances(cost.dtype)[0]
        if not (closed and bool(point.ended.all()) and bool((residual <= tolerance).all())):
            return self._iterated(cost, form, z)
        x = form.bounds.project(z[:, : self.lp.n])
        if torch.is_grad_enabled() and form.affine is not None:
            inside = z[:, : self.lp.n] == x
            rule = JFBRule(form, step, inside) if isinstance(self.backward, JFB) else ExactRule(exact, numbers, point.y)
            x = Polished.apply(cost, form.affine.b, x, rule)
        return _converged(x, z, residual, tolerance)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def _rough_multipliers(self, cost: Tensor, form: StandardForm, exact: ExactSolver) -> np.ndarray | None:
        """On grids, where a projection is cheap: the multipliers at a loose Davis-Yin solution in float32."""
        if form.affine is None or self.lp.m_ub or not isinstance(form.affine.factor, GridFlows):
            return None
        cost = cost.float()
        loose = self._form(cost)
        if form.lp is not self.lp:
            loose = loose.with_rhs(form.lp, cost)
        step = self._step(cost, loose)
        splitting = DavisYin(loose.problem(cost, self.gamma), step=step)
        solver = KrasnoselskiiMann(_LOOSE, relaxation=self.solver.relaxation)
        solution = solve(splitting, torch.zeros_like(cost), solver=solver, on_failure="ignore")
        return multipliers(solution.z, loose, cost, step, self.gamma, exact.norms)


def _converged(x: Tensor, z: Tensor, residual: Tensor, tolerance: float) -> Solution:
    """What `solve` would return of a point that meets its tolerance."""
    steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return Solution(
        x=x,
        z=z,
        status=torch.full_like(steps, int(Status.CONVERGED)),
        residual=residual,
        steps=steps,
        tolerance=torch.full_like(residual, tolerance),
    )
