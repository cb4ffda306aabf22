"""The solution of a linear program as a layer: predicted costs in, `argmin c.x + gamma |x|^2 / 2` over the polyhedron out.

Source: D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with Quadratic
Regularization and Davis-Yin Splitting, TMLR (2024).
"""

import math
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o._solution import Solution
from implicit_l2o.backward.base import AbstractBackward
from implicit_l2o.backward.jfb import JFB
from implicit_l2o.certificates.base import Inference
from implicit_l2o.layer import OnFailure, report, solve
from implicit_l2o.linear_program.program import LinearProgram
from implicit_l2o.linear_program.standard_form import Rows, StandardForm
from implicit_l2o.linear_program.step import RELAXATION, automatic_step
from implicit_l2o.linear_program.unbounded import mark_unbounded
from implicit_l2o.linear_program.vertices import VertexWatch
from implicit_l2o.solvers.base import Stopping
from implicit_l2o.solvers.krasnoselskii_mann import KrasnoselskiiMann
from implicit_l2o.splittings.davis_yin import DavisYin


@final
class LPLayer(nn.Module):
    """`layer(c) = argmin { c.x + gamma |x|^2 / 2 : A_eq x = b_eq, A_ub x <= b_ub, lower <= x <= upper }`, batched.

    Davis-Yin alternates between the bounds, which the answer satisfies exactly, and the rows, which it satisfies up to the
    residual. The rows are factored once; the step follows from `gamma`, the scale of the costs and the rows.

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
        on_failure: as in `solve`.

    Raises:
        ValueError: an option is out of its range; the equations contradict each other.

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
        on_failure: OnFailure = "warn",
    ) -> None:
        super().__init__()
        if not isinstance(lp, LinearProgram):
            raise TypeError(f"LPLayer takes a LinearProgram; got {type(lp).__name__}.")
        self.lp = lp
        self.gamma = gamma
        self.normalize = normalize
        self.step = step
        self.backward = JFB() if backward is None else backward
        self.solver = KrasnoselskiiMann(Stopping(atol=tolerance, rtol=0.0, max_steps=max_steps), relaxation=relaxation)
        self.on_failure: OnFailure = on_failure
        self._rows = Rows.of(lp)
        self._watch = VertexWatch()
        self._forms: dict[tuple[torch.device, torch.dtype], StandardForm] = {}

    @property
    def gamma(self) -> float:
        """Of the quadratic term; it may be changed between forward passes, as a continuation does."""
        return self._gamma

    @gamma.setter
    def gamma(self, value: float) -> None:
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"LPLayer needs a finite gamma >= 0; got gamma={value}.")
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
        key = cost.device, cost.dtype
        if key not in self._forms:
            self._forms[key] = StandardForm.of(self.lp, self._rows, cost)
        form = self._forms[key]
        if b_eq is not None or b_ub is not None:
            form = form.with_rhs(self.lp.with_rhs(b_eq=b_eq, b_ub=b_ub), cost)
        if self.normalize:
            scale = cost.square().mean(1, keepdim=True).sqrt()
            cost = cost / scale.clamp_min(torch.finfo(cost.dtype).tiny)
        return cost, form

    def _solve(self, cost: Tensor, form: StandardForm) -> Solution:
        step = automatic_step(cost, self.gamma, form.rank) if self.step is None else self.step
        splitting = DavisYin(form.problem(cost, self.gamma), step=step)
        start = torch.zeros_like(form.lift(cost.detach()))
        with torch.autocast(cost.device.type, enabled=False):
            solution = solve(splitting, start, solver=self.solver, backward=self.backward, on_failure="ignore")
        if self.gamma == 0:
            solution = mark_unbounded(solution, splitting, cost)
        report(solution, self.solver, self.on_failure)
        if solution.x.requires_grad:
            self._watch(solution, form, self.gamma)
        return replace(solution, x=solution.x[:, : self.lp.n])
