"""Backward modes on the solution of a cone program, and the derivative of its data along their multipliers.

Every mode turns the cotangents of `x` and `y` into two vectors `(a, c)`. Those of the data are then
`-a` for q, `c` for b, `-(y a^T + c x^T)` for A and `-a x^T` for P.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.kkt import KKT
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.solution import GradientReport, ZeroGradientWarning
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting

if TYPE_CHECKING:  # it compiles, and needs numba
    from implicit_l2o.interop.cvxpy.chunked import Chunked

_SOLVED = 1e-6  # residual of the adjoint equations relative to the cotangent
_ENOUGH = 1e-9  # that of the batched factors, below which they stand
_ZERO = 1e-10  # of a gradient relative to the cotangent


class AbstractRule(ABC):
    """From cotangents `(B, n)`, `(B, m)` of the solution and the multipliers to `(a, c)` and a residual `(B,)`."""

    @abstractmethod
    def __call__(
        self, of_x: Float[np.ndarray, "B n"], of_y: Float[np.ndarray, "B m"]
    ) -> tuple[Float[np.ndarray, "B n"], Float[np.ndarray, "B m"], Float[np.ndarray, " B"]]:
        """Apply the mode."""


@dataclass(frozen=True, eq=False)
class ExactRule(AbstractRule):
    """The implicit function theorem on the optimality conditions, by factoring them."""

    programs: ConePrograms
    w: Float[np.ndarray, "B m"]
    kkt: "KKT | Chunked | None"

    def __call__(self, of_x: np.ndarray, of_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Solve the transposed equations."""
        of_w = derivative(self.programs.cones, self.w)(of_y) - of_y if of_y.any() else np.zeros_like(of_y)
        if self.kkt is None or isinstance(self.kkt, KKT):
            return KKT.at(self.programs, self.w, self.kkt).solve(of_x, of_w, transposed=True)
        kkt = self.kkt
        a, c, residual = kkt.at(kkt.pattern, self.programs, self.w, kkt).solve(of_x, of_w, transposed=True)
        open_ = np.flatnonzero(~(residual <= _ENOUGH))
        if len(open_):  # at a degenerate vertex, where that takes least squares
            one_by_one = KKT.at(self.programs.take(open_), self.w[open_])
            a[open_], c[open_], residual[open_] = one_by_one.solve(of_x[open_], of_w[open_], transposed=True)
        return a, c, residual


@dataclass(frozen=True, eq=False)
class SplittingRule(AbstractRule):
    """The modes that differentiate the splitting map: JFB, a Neumann series, and an iterative solve of the adjoint."""

    splitting: ConicSplitting
    z: Float[Tensor, "B latent"]
    backward: il2o.AbstractBackward

    @torch.no_grad()
    def __call__(self, of_x: np.ndarray, of_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cotangent of `z = T(z)` under the mode, then one transposed step."""
        s, n = self.splitting, of_x.shape[1]
        v = self.z[:, n:]
        D = derivative(s.cones, v.numpy())
        gy = torch.as_tensor(of_y) * s.rho
        # y = R (Pi(v) - v) is read off the second part of z.
        cotangent = torch.cat([torch.as_tensor(of_x), torch.as_tensor(D(gy.numpy())) - gy], 1)
        residual = np.zeros(len(of_x))
        if isinstance(self.backward, il2o.Neumann):
            term = cotangent
            for _ in range(self.backward.k):
                term = self._pull_back(term, D)
                cotangent = cotangent + term
        elif isinstance(self.backward, il2o.Implicit):
            solver = self.backward.solver
            if isinstance(solver, il2o.NormalCG):
                raise TypeError("a CvxpyLayer has no product with dT/dz, which NormalCG needs.")
            if isinstance(solver, il2o.GMRES):
                solve = solver.solve(lambda u: u - self._pull_back(u, D), cotangent)
                cotangent, residual = solve.u, solve.residual.numpy()
            else:
                unit = cotangent.norm(dim=1, keepdim=True).clamp_min(1e-300)
                start = cotangent / unit
                point = il2o.fixed_point(
                    lambda u: start + self._pull_back(u, D), start, solver=solver, on_failure="ignore"
                )
                cotangent, residual = point.z * unit, point.residual.numpy()
        of_ahead, of_slack = cotangent[:, :n], cotangent[:, n:]
        a = s.factor.solve(of_ahead - s.factor.multiply_transposed(of_slack))
        return a.numpy(), (s.rho * s.factor.multiply(a) + of_slack).numpy(), residual

    def _pull_back(self, u: Tensor, D: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """`u dT/dz`."""
        s, n = self.splitting, self.splitting.q.shape[1]
        t = s.factor.solve(u[:, :n] - s.factor.multiply_transposed(u[:, n:]))
        ahead = s.rho * s.factor.multiply(t)
        bent = torch.as_tensor(D((u[:, n:] + 2 * ahead).numpy()))
        return torch.cat([s.sigma * t, u[:, n:] + ahead - bent], 1)


def derivative(cones: il2o.ConeProduct, w: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The product with the derivative of the projection at `w`, which is symmetric."""
    if cones.size == cones.zero + cones.nonnegative:
        free = np.concatenate([np.zeros_like(w[:, : cones.zero]), w[:, cones.zero :] > 0], 1)
        return lambda v: free * v
    with torch.enable_grad():
        point = torch.as_tensor(w).clone().requires_grad_()
        image = cones.project(point)

    def apply(v: np.ndarray) -> np.ndarray:
        (result,) = torch.autograd.grad(image, point, torch.as_tensor(v), retain_graph=True)
        return result.numpy()

    return apply


@dataclass(eq=False)
class ZeroWatch:
    """Warns of batches whose solutions sit at vertices, at the 1st, 2nd, 4th, 8th ... one.

    A loss may have a zero gradient for reasons of its own, so another cotangent has to come back as zero as well.
    """

    batches: int = field(default=0)

    def __call__(self, zero: np.ndarray, probe: Callable[[], np.ndarray]) -> None:
        """Look at the samples of one batch that had a cotangent; `probe` gives a gradient of another one."""
        if not len(zero) or not zero.all():
            return
        self.batches += 1
        if self.batches & (self.batches - 1) == 0 and np.abs(probe()).max(initial=0.0) <= _ZERO:
            warnings.warn(
                f"the gradient of every sample of this batch of {len(zero)} is zero: the solutions sit at vertices, where "
                "small changes of these parameters move nothing. Add a strongly convex term to the objective.",
                ZeroGradientWarning,
                stacklevel=2,
            )


class Differentiated(torch.autograd.Function):
    """Given solutions, differentiable in the parameter vector by a rule."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        vector: Tensor,
        x: Tensor,
        y: Tensor,
        programs: ConePrograms,
        rule: AbstractRule,
        report: GradientReport,
        watch: ZeroWatch,
        failed: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The solutions."""
        ctx.rest = (programs, rule, report, watch, failed)
        ctx.save_for_backward(x, y)
        return x.clone(), y.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_x: Tensor, of_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rule, and the products with what varies."""
        x, y = (part.numpy() for part in ctx.saved_tensors)
        programs, rule, report, watch, failed = ctx.rest
        lost = failed.numpy()
        gx, gy = np.where(lost[:, None], 0.0, of_x.numpy()), np.where(lost[:, None], 0.0, of_y.numpy())
        gradient, residual = _pull_back(programs, rule, x, y, gx, gy, ~lost)
        size = np.sqrt(np.square(gx).sum(1) + np.square(gy).sum(1))
        zero = (np.abs(gradient[:, :-1]).max(1, initial=0.0) <= _ZERO * size) & (size > 0)
        report.residual, report.zero = torch.as_tensor(residual), torch.as_tensor(zero)
        report.solved = torch.as_tensor((residual <= _SOLVED) & ~lost)
        other = np.broadcast_to(np.cos(np.arange(x.shape[1]) + 1.0), x.shape)
        watch(
            zero[(size > 0) & ~lost],
            lambda: _pull_back(programs, rule, x, y, other, np.zeros_like(y), ~lost)[0][:, :-1],
        )
        _warn_of_failures(residual, lost)
        return torch.as_tensor(gradient), None, None, None, None, None, None, None


def _pull_back(
    programs: ConePrograms,
    rule: AbstractRule,
    x: np.ndarray,
    y: np.ndarray,
    gx: np.ndarray,
    gy: np.ndarray,
    sound: np.ndarray,
) -> tuple[Float[np.ndarray, "B p"], Float[np.ndarray, " B"]]:
    """The cotangents of the parameter vector, and the residual of the rule; zero where a sample is not sound."""
    canonical, good = programs.canonical, np.flatnonzero(sound)
    a, c, residual = np.zeros_like(x), np.zeros_like(y), np.zeros(len(x))
    if len(good):
        a[good], c[good], residual[good] = rule(gx[good], gy[good])
    gradient = (canonical.q.map.T @ np.concatenate([-a, np.zeros((len(a), 1))], 1).T).T
    rows, columns = canonical.Ab.rows, canonical.Ab.columns
    wide_a, wide_x = (np.concatenate([part, np.full((len(x), 1), end)], 1) for part, end in ((a, 0.0), (x, 1.0)))
    # The entries are those of [-A, b]: c for b stands in the last column, where x continues by 1.
    of_entries = y[:, rows] * wide_a[:, columns] + c[:, rows] * wide_x[:, columns]
    gradient = gradient + (canonical.Ab.map.T @ of_entries.T).T
    if canonical.P is not None:
        gradient = gradient - (canonical.P.map.T @ (a[:, canonical.P.rows] * x[:, canonical.P.columns]).T).T
    return gradient, residual


def _warn_of_failures(residual: np.ndarray, lost: np.ndarray) -> None:
    missed = np.flatnonzero(~(residual <= _SOLVED) & ~lost)
    if len(missed):
        shown = ", ".join(map(str, missed[:5])) + (", ..." if len(missed) > 5 else "")
        warnings.warn(
            f"CvxpyLayer: the linear equations of the gradient have no solution for {len(missed)} of {len(lost)} samples "
            f"(samples {shown}; worst relative residual {residual[missed].max():.1e}), so their solutions are not "
            "differentiable; they take the least-squares gradient.",
            il2o.ConvergenceWarning,
            stacklevel=2,
        )
