"""Batched, per-sample GMRES with restarts (Saad and Schultz 1986), for the adjoint equation of `Implicit`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.backward.linear import DEFAULT_RTOL, LinearSolve


@dataclass(frozen=True, kw_only=True)
class GMRES:
    """Solve a linear equation per sample to `|b - A u| <= rtol |b|`.

    Args:
        rtol: relative tolerance; None takes 1e-8 in float64, 1e-5 in float32.
        restart: Krylov vectors kept, at least 1.
        max_steps: most operator applications a sample.

    Raises:
        ValueError: an option is outside its range.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> A = torch.tensor([[2.0, 1.0], [0.0, 4.0]])
        >>> il2o.GMRES().solve(lambda u: u @ A.mT, torch.tensor([[3.0, 4.0]])).u.round(decimals=3)
        tensor([[1., 1.]])
    """

    rtol: float | None = None
    restart: int = 30
    max_steps: int = field(default=300)

    def __post_init__(self) -> None:
        if self.rtol is not None and not 0 < self.rtol < 1:
            raise ValueError(f"GMRES needs 0 < rtol < 1 (or None); got rtol={self.rtol}.")
        for name in ("restart", "max_steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"GMRES needs an integer {name} >= 1; got {name}={value}.")

    def solve(self, apply: Callable[[Tensor], Tensor], b: Float[Tensor, "B n"]) -> LinearSolve:
        """Solve `apply(u) = b`; a sample that is done takes no part in what follows, so its mates do not change it."""
        size = _batch.norm(b)
        goal = (DEFAULT_RTOL[b.dtype] if self.rtol is None else self.rtol) * size
        permitted = torch.maximum(goal, torch.finfo(b.dtype).eps ** 0.5 * size)
        u, residual, open_ = torch.zeros_like(b), size, size > goal
        steps = torch.zeros(b.shape[0], dtype=torch.int64, device=b.device)
        spent = 0
        while spent < self.max_steps and bool(open_.any()):
            gap = b if spent == 0 else b - apply(u)
            cycle = _Cycle(torch.where(open_[:, None], gap, 0.0), min(self.restart, self.max_steps - spent), goal)
            u = u + cycle.run(apply)
            steps = steps + cycle.steps
            spent += max(cycle.length, 1)
            residual = torch.where(open_, cycle.residual, residual)
            claimed = open_ & (residual <= goal)
            if bool(claimed.any()):
                # The rotations do not see rounding, nor that a singular equation was "solved" by a huge u (whose residual
                # is known no better than u is rounded). What is short of the goal goes into another cycle; what is worse
                # than no solution at all will not get better.
                true = torch.maximum(_batch.norm(b - apply(u)), torch.finfo(b.dtype).eps * _batch.norm(u))
                residual = torch.where(claimed, true, residual)
                open_ = open_ & ~(claimed & ((residual <= permitted) | ~(residual < size)))
        relative = torch.where(size > 0, residual / size, 0.0)
        return LinearSolve(u, (residual <= permitted) & ~open_ & _batch.finite(u), relative, steps)


class _Cycle:
    """One restart cycle: Arnoldi with repeated classical Gram-Schmidt, and Givens rotations on the Hessenberg matrix."""

    def __init__(self, start: Tensor, length: int, goal: Tensor) -> None:
        batch, n = start.shape
        self.goal, self.max_length, self.length = goal, length, 0
        self.residual = _batch.norm(start)
        self.basis = start.new_zeros(batch, length + 1, n)
        self.basis[:, 0] = _divide(start, self.residual)
        self.upper = start.new_zeros(batch, length, length)
        self.target = start.new_zeros(batch, length + 1)
        self.target[:, 0] = self.residual
        self.cos, self.sin = start.new_zeros(batch, length), start.new_zeros(batch, length)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=start.device)

    def run(self, apply: Callable[[Tensor], Tensor]) -> Tensor:
        for j in range(self.max_length):
            running = self.residual > self.goal  # False for zero vectors, for finished and for non-finite samples
            if not bool(running.any()):
                break
            self._extend(apply(self.basis[:, j]), j, running)
            self.steps = self.steps + running
            self.length = j + 1
        return self._combine()

    def _extend(self, w: Tensor, j: int, running: Tensor) -> None:
        known = self.basis[:, : j + 1]
        column = torch.zeros_like(self.target[:, : j + 1])
        for _ in range(2):  # once loses orthogonality, twice is enough (Giraud et al. 2005)
            overlap = torch.einsum("bkn,bn->bk", known, w)
            w = w - torch.einsum("bk,bkn->bn", overlap, known)
            column = column + overlap
        below = _batch.norm(w)
        for i in range(j):
            upper, lower = column[:, i].clone(), column[:, i + 1].clone()
            column[:, i] = self.cos[:, i] * upper + self.sin[:, i] * lower
            column[:, i + 1] = self.cos[:, i] * lower - self.sin[:, i] * upper
        radius = torch.hypot(column[:, j], below)
        nonzero = radius > 0
        self.cos[:, j] = torch.where(nonzero, column[:, j] / radius, 1.0)
        self.sin[:, j] = torch.where(nonzero, below / radius, 0.0)
        column[:, j] = radius
        # A finished sample gets a zero column and a zero next vector: it stands still.
        self.upper[:, : j + 1, j] = torch.where(running[:, None], column, 0.0)
        g = self.target[:, j].clone()
        self.target[:, j] = torch.where(running, self.cos[:, j] * g, g)
        self.target[:, j + 1] = torch.where(running, -self.sin[:, j] * g, 0.0)
        residual = self.target[:, j + 1].abs()
        # A singular direction cannot be used; the equation is then solved as far as it can be.
        self.residual = torch.where(running & nonzero, residual, self.residual)
        self.basis[:, j + 1] = torch.where(running[:, None], _divide(w, below), 0.0)

    def _combine(self) -> Tensor:
        """Back substitution on the triangular system, sample by sample; zero columns get weight zero."""
        k = self.length
        if k == 0:
            return torch.zeros_like(self.basis[:, 0])
        weights = self.target.new_zeros(self.target.shape[0], k)
        for i in reversed(range(k)):
            rest = self.target[:, i] - (self.upper[:, i, i + 1 : k] * weights[:, i + 1 :]).sum(-1)
            weights[:, i] = _divide(rest[:, None], self.upper[:, i, i]).squeeze(-1)
        return torch.einsum("bk,bkn->bn", weights, self.basis[:, :k])


def _divide(x: Tensor, by: Tensor) -> Tensor:
    """`x / by` row by row, zero where `by` is."""
    return torch.where(by[:, None] > 0, x / by[:, None], 0.0)
