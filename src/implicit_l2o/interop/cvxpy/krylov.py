"""Newton steps and adjoints by GMRES on the splitting map, where factors of the optimality conditions would be too large.

The block of a semidefinite cone of order k is dense in the optimality conditions, k(k+1)/2 rows of it; its product with a
vector is four products of matrices of order k.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.compact import CompactSplitting
from implicit_l2o.interop.cvxpy.polish import project
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.rules import AbstractRule, ExactRule, Product, Term, derivative

_FORWARD = il2o.GMRES(restart=60, max_steps=60)  # of a Newton step, after which may come another one ...
_NEWTON = 1e-8, 1e-4  # ... with a tolerance between these, which goes straight to the goal ...
_BEYOND = 0.03  # ... and a little further
_ADJOINT = il2o.GMRES(rtol=1e-9, restart=60, max_steps=300)
_ENOUGH = 1e-7  # residual of the adjoint relative to the cotangent, above which it is factored after all


@torch.no_grad()
def newton(
    programs: ConePrograms,
    splitting: CompactSplitting,
    x: np.ndarray,
    w: np.ndarray,
    *,
    steps: int,
    goal: Float[np.ndarray, " B"],
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " B"]]:
    """Newton steps on the optimality conditions, until none gets better: the best points and their residuals.

    A point solves the program whose data are away by its residuals; a step is the derivative of the fixed point in these.
    """
    zero = programs.cones.zero
    best_x, best_w, best = x, w, np.full(len(x), np.inf)
    for step in range(steps + 1):
        rest = torch.as_tensor(np.concatenate(programs.residuals(x, w, project(programs, w)), 1))
        size = rest.norm(dim=1).numpy()
        better = size < best
        best_x, best_w = np.where(better[:, None], x, best_x), np.where(better[:, None], w, best_w)
        best = np.where(better, size, best)
        open_ = better & (best > goal)
        if step == steps or not open_.any():
            break
        # Those that got worse stay where they were best.
        x, w = best_x, best_w
        rest = torch.where(torch.as_tensor(open_)[:, None], -rest, 0.0)
        v = splitting.lift(torch.as_tensor(w))
        D = derivative_at(splitting, v)
        right = -splitting.answer(rest, torch.zeros_like(v))[1][:, zero:] / splitting.rho
        missing = np.max(np.where(open_, size / goal, 1.0))
        solver = replace(_FORWARD, rtol=float(np.clip(_BEYOND / missing, *_NEWTON)))
        dv = solver.solve(lambda u, D=D: u - push_forward(splitting, D, u), right).u
        dx, dy = splitting.answer(rest, dv - 2 * D(dv))
        v = v + dv
        x = x + dx.numpy()
        equations, others = w[:, :zero] - dy[:, :zero].numpy(), splitting.slacks(v, splitting.cones.project(v)).numpy()
        w = np.concatenate([equations, others], 1)
    return best_x, best_w, best


Linear = Callable[[Tensor], Tensor]


def derivative_at(splitting: CompactSplitting, v: Float[Tensor, "B k"]) -> Linear:
    """The product with that of the projection, which is symmetric."""
    D = derivative(splitting.cones, v.numpy())
    return lambda u: torch.as_tensor(D(u.numpy()))


def push_forward(s: CompactSplitting, D: Linear, u: Float[Tensor, "B k"]) -> Float[Tensor, "B k"]:
    """`dT/dv u`."""
    ds = D(u)
    return ds - s.respond(u - 2 * ds) / s.rho


def pull_back(s: CompactSplitting, D: Linear, u: Float[Tensor, "B k"]) -> Float[Tensor, "B k"]:
    """`u dT/dv`."""
    ahead = -s.respond(u / s.rho)
    return D(u - 2 * ahead) + ahead


@dataclass(frozen=True, eq=False)
class KrylovRule(AbstractRule):
    """The implicit function theorem on the splitting map, by GMRES; by factors for the samples where that stalls."""

    programs: ConePrograms
    splitting: CompactSplitting
    w: Float[np.ndarray, "B m"]

    @torch.no_grad()
    def __call__(
        self, of_x: Float[np.ndarray, "B n"], of_y: Float[np.ndarray, "B m"]
    ) -> tuple[list[Term], Float[np.ndarray, " B"]]:
        """Solve the adjoint equation."""
        s, zero = self.splitting, self.programs.cones.zero
        v = s.lift(torch.as_tensor(self.w))
        D = derivative_at(s, v)
        # Of x, of the multipliers of the equations, and of those of the rest, which are R (s - v).
        direct = torch.as_tensor(np.concatenate([of_x, of_y[:, :zero], np.zeros_like(of_y[:, zero:])], 1))
        ahead = s.answer(direct, torch.zeros_like(v))[1][:, zero:]
        of_rest = torch.as_tensor(of_y[:, zero:]) * s.rho
        cotangent = ahead - of_rest + D(of_rest - 2 * ahead)
        solve = _ADJOINT.solve(lambda u: u - pull_back(s, D, u), cotangent)
        a, c = (part.numpy() for part in s.answer(direct, -solve.u / s.rho))
        bend = derivative(self.programs.cones, self.w)
        bent = bend(of_y) - of_y
        residual = self._residual(bend, a, c, of_x, bent)
        open_ = np.flatnonzero(~(residual <= _ENOUGH))
        if len(open_):
            own = ExactRule(self.programs.take(open_), self.w[open_], None)
            a[open_], c[open_], residual[open_] = own.solve(of_x[open_], bent[open_], transposed=True)
        return [Term(a, c)], residual

    @property
    def twice(self) -> ExactRule | None:
        """By factors, where they serve."""
        return ExactRule(self.programs, self.w, None).twice

    def _residual(
        self, bend: Product, a: np.ndarray, c: np.ndarray, top: np.ndarray, bottom: np.ndarray
    ) -> Float[np.ndarray, " B"]:
        """That of the equations of `kkt`, which know nothing of the regularised factor, relative to the right-hand side."""
        p = self.programs
        Aa = p.multiply(a)
        rest = np.concatenate([p.curvature(a) + p.multiply_transposed(c) - top, bend(Aa + c) - Aa - bottom], 1)
        size = np.sqrt(np.square(top).sum(1) + np.square(bottom).sum(1))
        return np.sqrt(np.square(rest).sum(1)) / np.maximum(size, np.finfo(float).tiny)
