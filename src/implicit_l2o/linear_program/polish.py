"""From the exact solution to the layer's: the fixed point of Davis-Yin that it is, and its gradient in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.linear_program.exact import DualPoint, ExactSolver, Numbers, host
from implicit_l2o.linear_program.standard_form import StandardForm
from implicit_l2o.operators.base import Scalar

# From the cotangents of the solutions, `(B, n)`, to those of the costs, `(B, n)`, and, where they are wanted, of the
# right-hand sides, `(B, m)`.
Rule: TypeAlias = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]


def lift(
    point: DualPoint, form: StandardForm, cost: Float[Tensor, "B n"], step: Scalar, gamma: float
) -> Float[Tensor, "B n_slacks"]:
    """The fixed point `z` of Davis-Yin that reads out to a solution: `z = x + step normal`, the normal of the bounds at `x`.

    By stationarity the normal is `A^T y - c - gamma x`, and `y` on the slacks. A sample that was not solved starts at 0.
    """
    x, price = (torch.as_tensor(part).to(cost) for part in (point.x, point.price))
    step = _column(step)
    z = x + step * (price - cost.detach() - gamma * x)
    if form.lp.m_ub:
        gap, y = (torch.as_tensor(part[:, form.lp.m_eq :]).to(cost) for part in (point.gap, point.y))
        z = torch.cat([z, gap.clamp_min(0.0) + step * y], dim=1)
    if point.ended.all():
        return z
    return torch.where(torch.as_tensor(point.ended, device=z.device)[:, None], z, 0.0)


def multipliers(
    z: Float[Tensor, "B n"],
    form: StandardForm,
    cost: Float[Tensor, "B n"],
    step: Scalar,
    gamma: float,
    norms: Float[np.ndarray, " m"],
) -> Float[np.ndarray, "B m"]:
    """The multipliers of equations, scaled to norm one, that fit an iterate of Davis-Yin best: the reverse of `lift`."""
    assert form.affine is not None
    x = form.box.project(z)
    return host(form.affine.factor.multipliers((z - x) / _column(step) + cost + gamma * x)) * norms


def distance(point: DualPoint, form: StandardForm, norms: Float[np.ndarray, " m"], like: Tensor) -> Float[Tensor, " B"]:
    """`|T(z) - z|` at the lifted point: the distance of `x` with its slacks to the rows, `|A^+ (b - A x - s)|`."""
    assert form.affine is not None
    gap = point.gap.copy()
    gap[:, form.lp.m_eq :] = gap[:, form.lp.m_eq :].clip(max=0.0)  # what no slack can take up
    return _batch.norm(form.affine.factor.solve(torch.as_tensor(gap * norms).to(like)))


@dataclass(frozen=True, eq=False)
class ExactRule:
    """The derivative, by one sparse factorisation on the support of each solution."""

    solver: ExactSolver
    numbers: Numbers
    y: np.ndarray

    def __call__(self, v: Tensor, with_rhs: bool) -> tuple[Tensor, Tensor | None]:
        """See `ExactSolver.pull_back`."""
        in_cost, in_rhs = self.solver.pull_back(self.numbers, self.y, host(v))
        return torch.as_tensor(in_cost).to(v), torch.as_tensor(in_rhs).to(v) if with_rhs else None


@dataclass(frozen=True, eq=False)
class JFBRule:
    """That of one application of Davis-Yin, its input fixed: `x = P1(z - P1(z) + P2(2 P1(z) - z - step (c + gamma P1(z))))`.

    With `D` the derivative of the bounds' projection, `N` the projection onto null(A): `-step N D v` and `(A^+)^T D v`.
    """

    form: StandardForm
    step: Scalar
    inside: Tensor  # (B, n), of the bounds; bool

    def __call__(self, v: Tensor, with_rhs: bool) -> tuple[Tensor, Tensor | None]:
        """One projection."""
        assert self.form.affine is not None
        factor = self.form.affine.factor
        kept = self.form.lift(torch.where(self.inside, v, 0.0))
        in_cost = factor.project(kept, torch.zeros_like(kept[:1]))[:, : v.shape[1]] * -_column(self.step)
        return in_cost, factor.multipliers(kept) if with_rhs else None


class Polished(torch.autograd.Function):
    """The given solutions, differentiable in costs and right-hand sides by a rule.

    They are piecewise affine in both, so a second derivative is zero where it exists; it is refused.
    """

    @staticmethod
    def forward(ctx: Any, cost: Tensor, b: Tensor, x: Tensor, rule: Rule) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The solutions."""
        ctx.rule, ctx.shape = rule, b.shape
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rule, outside autocast like the solve."""
        with torch.autocast(v.device.type, enabled=False):
            in_cost, in_rhs = ctx.rule(v, ctx.needs_input_grad[1])
        return in_cost, None if in_rhs is None else in_rhs.sum_to_size(ctx.shape), None, None


def _column(step: Scalar) -> Scalar:
    return step[:, None] if isinstance(step, Tensor) and step.ndim else step
