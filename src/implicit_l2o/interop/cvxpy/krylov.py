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
# Of the adjoint, and again of what that leaves.
_ADJOINTS = (il2o.GMRES(rtol=1e-9, restart=60, max_steps=300), *2 * (il2o.GMRES(rtol=1e-4, restart=60, max_steps=120),))
_FINE = 1e-12  # residual of the adjoint relative to the cotangent, at which it is solved ...
_ENOUGH = 1e-9  # ... and above which it is factored after all


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
        """Solve the adjoint equation, in rounds: the splitting's factor is regularised, and a residual shows by how much."""
        n, bend = of_x.shape[1], derivative(self.programs.cones, self.w)
        right = np.concatenate([of_x, bend(of_y) - of_y], 1)
        size = np.maximum(np.sqrt(np.square(right).sum(1)), np.finfo(float).tiny)
        v = self.splitting.lift(torch.as_tensor(self.w))
        D = derivative_at(self.splitting, v)
        found, rest, residual = np.zeros_like(right), right, np.ones(len(right))
        for solver in _ADJOINTS:
            new = found + self._solve(D, rest, solver)
            rest = right - self._product(bend, new)
            missing = np.sqrt(np.square(rest).sum(1)) / size
            better = missing < residual
            found, residual = np.where(better[:, None], new, found), np.where(better, missing, residual)
            rest = np.where((better & (residual > _FINE))[:, None], rest, 0.0)
            if not rest.any():
                break
        a, c = found[:, :n], found[:, n:]
        open_ = np.flatnonzero(~(residual <= _ENOUGH))
        if len(open_):
            own = ExactRule(self.programs.take(open_), self.w[open_], None)
            a[open_], c[open_], residual[open_] = own.solve(right[open_, :n], right[open_, n:], transposed=True)
        return [Term(a, c)], residual

    def _solve(self, D: Linear, right: Float[np.ndarray, "B size"], solver: il2o.GMRES) -> Float[np.ndarray, "B size"]:
        """About the solution of the transposed equations of `kkt`, with `(D - I) A a + D c = b` in `v` instead of `w`."""
        s = self.splitting
        given = torch.as_tensor(right)
        first, b = s.first, given[:, s.first :]
        zero = self.programs.cones.zero
        direct = torch.cat([given[:, : first - zero], -given[:, first - zero : first], torch.zeros_like(b)], 1)
        ahead = s.answer(direct, torch.zeros_like(b))[1][:, zero:]
        cotangent = ahead + s.rho * b - D(2 * ahead + s.rho * b - b)
        found = solver.solve(lambda u: u - pull_back(s, D, u), cotangent).u
        return torch.cat(s.answer(direct, -found / s.rho), 1).numpy()

    def _product(self, bend: Product, x: Float[np.ndarray, "B size"]) -> Float[np.ndarray, "B size"]:
        """Those equations' left-hand sides."""
        p = self.programs
        a, c = x[:, : p.canonical.n], x[:, p.canonical.n :]
        Aa = p.multiply(a)
        return np.concatenate([p.curvature(a) + p.multiply_transposed(c), bend(Aa + c) - Aa], 1)
