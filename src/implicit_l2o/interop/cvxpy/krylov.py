"""Newton steps and adjoints by GMRES on the splitting map, where factors of the optimality conditions would be too large.

The block of a semidefinite cone of order k is dense in the optimality conditions, k(k+1)/2 rows of it; its product with a
vector is four products of matrices of order k.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.kkt import KKT
from implicit_l2o.interop.cvxpy.polish import project
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.rules import AbstractRule, Product, SplittingRule, Term, derivative
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting

_FORWARD = il2o.GMRES(rtol=1e-6, max_steps=60)  # of a Newton step, after which comes another one
_ADJOINT = il2o.GMRES(rtol=1e-9, restart=60, max_steps=300)
_ENOUGH = 1e-7  # residual of the adjoint relative to the cotangent, above which it is factored after all


@torch.no_grad()
def newton(
    programs: ConePrograms,
    splitting: ConicSplitting,
    x: np.ndarray,
    w: np.ndarray,
    *,
    steps: int,
    goal: Float[np.ndarray, " B"],
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " B"]]:
    """Newton steps on the optimality conditions, until none gets better: the best points and their residuals.

    A point solves the program whose data are away by its residuals; a step is the derivative of the fixed point in these.
    """
    n = x.shape[1]
    best_x, best_w, best = x, w, np.full(len(x), np.inf)
    for step in range(steps + 1):
        top, bottom = (torch.as_tensor(part) for part in programs.residuals(x, w, project(programs, w)))
        size = torch.sqrt(top.square().sum(1) + bottom.square().sum(1)).numpy()
        better = size < best
        best_x, best_w = np.where(better[:, None], x, best_x), np.where(better[:, None], w, best_w)
        best = np.where(better, size, best)
        if step == steps or not (better & (best > goal)).any():
            break
        z = splitting.lift(torch.as_tensor(x), torch.as_tensor(w))
        D = derivative(programs.cones, z[:, n:].numpy())
        open_ = torch.as_tensor(best > goal)[:, None]
        right = torch.where(open_, _moved(splitting, top, bottom), 0.0)
        dz = _FORWARD.solve(lambda u, D=D: u - push_forward(splitting, D, u), right).u
        x, w = (part.numpy() for part in splitting.point(z + dz))
    return best_x, best_w, best


def push_forward(s: ConicSplitting, D: Product, u: Float[Tensor, "B latent"]) -> Float[Tensor, "B latent"]:
    """`dT/dz u`."""
    n = s.q.shape[1]
    dx, dv = u[:, :n], u[:, n:]
    ds = torch.as_tensor(D(dv.numpy()))
    ahead = s.factor.solve(s.sigma * dx + s.factor.multiply_transposed(s.rho * (dv - 2 * ds)))
    return torch.cat([ahead, dv - s.factor.multiply(ahead) - ds], 1)


def _moved(s: ConicSplitting, top: Tensor, bottom: Tensor) -> Tensor:
    """How `T` moves when q grows by `top` and b falls by `bottom`."""
    ahead = s.factor.solve(-top - s.factor.multiply_transposed(s.rho * bottom))
    return torch.cat([ahead, -bottom - s.factor.multiply(ahead)], 1)


@dataclass(frozen=True, eq=False)
class KrylovRule(AbstractRule):
    """The implicit function theorem on the splitting map, by GMRES; by factors for the samples where that stalls."""

    programs: ConePrograms
    splitting: ConicSplitting
    x: Float[np.ndarray, "B n"]
    w: Float[np.ndarray, "B m"]

    def __call__(
        self, of_x: Float[np.ndarray, "B n"], of_y: Float[np.ndarray, "B m"]
    ) -> tuple[list[Term], Float[np.ndarray, " B"]]:
        """Solve the adjoint equation."""
        z = self.splitting.lift(torch.as_tensor(self.x), torch.as_tensor(self.w))
        (term,), residual = SplittingRule(self.splitting, z, il2o.Implicit(_ADJOINT))(of_x, of_y)
        open_ = np.flatnonzero(~(residual <= _ENOUGH))
        if len(open_):
            D = derivative(self.programs.cones, self.w)
            own = KKT.at(self.programs.take(open_), self.w[open_])
            bent = (D(of_y) - of_y)[open_]
            term.a[open_], term.c[open_], residual[open_] = own.solve(of_x[open_], bent, transposed=True)
        return [term], residual
