"""Batched, per-sample conjugate gradient on the normal equations, for the adjoint equation of `Implicit`.

Source: Hestenes and Stiefel 1952, section 10, in the form that keeps the residual of the equation itself (CGLS: Björck,
Numerical Methods for Least Squares Problems, algorithm 7.4.1). JFB's authors call it Jacobian-based backpropagation:
`w J J^T = v J^T` with `J = I - dT/dz`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.backward.linear import DEFAULT_RTOL, LinearSolve


@dataclass(frozen=True, kw_only=True)
class NormalCG:
    """Solve a linear equation per sample to `|b - A u| <= rtol |b|` by conjugate gradient on `A^T A u = A^T b`.

    Every iteration takes a product with `A` and one with `A^T`, and the condition number is that of `A` squared: `GMRES`
    needs fewer products and no transpose. It keeps four vectors, whatever the number of iterations, and its residual never
    grows. `T` has to be differentiable twice by autograd, for the transpose is the derivative of a derivative.

    Args:
        rtol: relative tolerance; None takes 1e-8 in float64, 1e-5 in float32.
        max_steps: most products with `A` and `A^T` a sample, at least 3 (one iteration).

    Raises:
        ValueError: an option is outside its range.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> A = torch.tensor([[2.0, 1.0], [0.0, 4.0]])
        >>> solve = il2o.NormalCG().solve(lambda u: u @ A.mT, lambda r: r @ A, torch.tensor([[3.0, 4.0]]))
        >>> solve.u.round(decimals=3)
        tensor([[1., 1.]])
    """

    rtol: float | None = None
    max_steps: int = field(default=600)

    def __post_init__(self) -> None:
        if self.rtol is not None and not 0 < self.rtol < 1:
            raise ValueError(f"NormalCG needs 0 < rtol < 1 (or None); got rtol={self.rtol}.")
        if not isinstance(self.max_steps, int) or self.max_steps < 3:
            raise ValueError(f"NormalCG needs an integer max_steps >= 3; got max_steps={self.max_steps}.")

    def solve(
        self, apply: Callable[[Tensor], Tensor], transpose: Callable[[Tensor], Tensor], b: Float[Tensor, "B n"]
    ) -> LinearSolve:
        """Solve `apply(u) = b`; a sample that is done takes no part in what follows, so its mates do not change it.

        Args:
            apply: `u -> A u`, sample by sample.
            transpose: `r -> A^T r`, likewise.
            b: the right-hand sides.
        """
        eps = torch.finfo(b.dtype).eps
        size = _batch.norm(b)
        goal = DEFAULT_RTOL[b.dtype] if self.rtol is None else self.rtol
        permitted = max(goal, eps**0.5)
        # Of unit length: the squares below would underflow for a small cotangent.
        unit = torch.where(size[:, None] > 0, b / size[:, None], 0.0)
        u, residual = torch.zeros_like(unit), torch.where(size > 0, 1.0, 0.0).to(b)
        steps = torch.zeros(b.shape[0], dtype=torch.int64, device=b.device)
        open_ = ~(residual <= goal)
        spent = 0
        while bool(open_.any()) and spent + 3 <= self.max_steps:
            gap = unit if spent == 0 else unit - apply(u)
            run = _Run(torch.where(open_[:, None], gap, 0.0), goal)
            u = u + run.iterate(apply, transpose, self.max_steps - spent)
            spent, steps = spent + run.spent, steps + run.steps
            residual = torch.where(open_, run.residual, residual)
            claimed = open_ & ~run.running
            if bool(claimed.any()):
                # The recurrence drifts away from the residual of what it computed. What is short of the goal starts
                # anew from there; a singular equation has come as close as it can.
                true = torch.maximum(_batch.norm(unit - apply(u)), eps * _batch.norm(u))
                residual = torch.where(claimed, true, residual)
                open_ = open_ & ~(claimed & ((residual <= permitted) | run.stuck))
        return LinearSolve(u * size[:, None], (residual <= permitted) & ~open_ & _batch.finite(u), residual, steps)


class _Run:
    """Iterations from one residual; samples whose residual is zero or not finite stand still."""

    def __init__(self, start: Tensor, goal: float) -> None:
        self.start, self.goal, self.spent = start, goal, 0
        self.residual = _batch.norm(start)
        self.running = (self.residual > goal) & torch.isfinite(self.residual)
        self.stuck = ~torch.isfinite(self.residual)
        self.steps = torch.zeros(start.shape[0], dtype=torch.int64, device=start.device)

    def iterate(self, apply: Callable[[Tensor], Tensor], transpose: Callable[[Tensor], Tensor], most: int) -> Tensor:
        """What to add to the solution, for at most this many products."""
        r, u = self.start, torch.zeros_like(self.start)
        p = self._count(transpose(r))
        slope, stretch = _batch.dot(p, p), torch.zeros_like(self.residual)
        noise = 4 * torch.finfo(r.dtype).eps
        while self.spent + 2 <= most:
            q = self._count(apply(p))
            curvature = _batch.dot(q, q)
            stretch = torch.maximum(stretch, torch.where(slope > 0, (curvature / _batch.dot(p, p)).sqrt(), 0.0))
            # A^T r = 0 up to rounding: nothing lowers the residual further, as happens where A is singular.
            flat = ~(slope.sqrt() > noise * stretch * self.residual) | ~(curvature > 0) | ~torch.isfinite(curvature)
            self.stuck = self.stuck | (self.running & flat)
            self.running = self.running & ~self.stuck
            length = torch.where(self.running, slope / curvature, 0.0)[:, None]
            u = torch.where(self.running[:, None], u + length * p, u)
            r = torch.where(self.running[:, None], r - length * q, r)
            self.residual = _batch.norm(r)
            self.running = self.running & (self.residual > self.goal)
            if not bool(self.running.any()):
                break
            s = self._count(transpose(r))
            former, slope = slope, _batch.dot(s, s)
            p = s + torch.where(self.running, slope / former, 0.0)[:, None] * p
        return u

    def _count(self, product: Tensor) -> Tensor:
        self.spent += 1
        self.steps = self.steps + self.running
        return product
