"""Solutions of cone programs as tensors that know their derivative, by the rule of a backward mode."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.canonical import Canonical
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.rules import AbstractRule
from implicit_l2o.interop.cvxpy.second import Refused, gradient_of_data
from implicit_l2o.interop.cvxpy.solution import GradientReport, ZeroGradientWarning

_SOLVED = 1e-6  # residual of the adjoint equations relative to the cotangent
_ZERO = 1e-10  # of a gradient relative to the cotangent


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


@dataclass(frozen=True, eq=False)
class Attached:
    """What the backward pass of a solution needs.

    Attributes:
        programs: the batch.
        rule: of the mode, on the samples that have an answer.
        lost: `(B,)` those that have none.
        report: is filled.
        watch: over gradients that are zero.
    """

    programs: ConePrograms
    rule: AbstractRule
    lost: np.ndarray
    report: GradientReport
    watch: ZeroWatch


class Differentiated(torch.autograd.Function):
    """Given solutions, differentiable in the parameter vector by a rule."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, vector: Tensor, x: Tensor, y: Tensor, attached: Attached
    ) -> tuple[Tensor, Tensor]:
        """The solutions."""
        ctx.attached = attached
        x, y = x.clone(), y.clone()
        ctx.save_for_backward(vector, x, y)
        return x, y

    @staticmethod
    def backward(ctx: Any, of_x: Tensor, of_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rule, and the products with what varies; recorded where a second derivative may follow."""
        attached: Attached = ctx.attached
        vector, x, y = ctx.saved_tensors
        gradient = _first(attached, *(part.detach().numpy() for part in (x, y, of_x, of_y)))
        if not torch.is_grad_enabled() or attached.lost.all():
            return gradient, None, None, None
        rule = attached.rule.twice
        if rule is None:
            return Refused.apply(gradient, vector, of_x, of_y), None, None, None
        good = torch.as_tensor(np.flatnonzero(~attached.lost))
        whole = torch.zeros_like(gradient)
        parts = (part[good] for part in (vector, x, y, of_x, of_y))
        return whole.index_copy(0, good, gradient_of_data(rule, *parts)), None, None, None


def _first(attached: Attached, x: np.ndarray, y: np.ndarray, of_x: np.ndarray, of_y: np.ndarray) -> Tensor:
    """The gradient, and what is to be said about it."""
    lost = attached.lost
    gx, gy = of_x, of_y
    if lost.any():
        gx, gy = np.where(lost[:, None], 0.0, of_x), np.where(lost[:, None], 0.0, of_y)
    gradient, residual = _pull_back(attached, x, y, gx, gy)
    size = np.sqrt(np.square(gx).sum(1) + np.square(gy).sum(1))
    zero = (np.abs(gradient[:, :-1]).max(1, initial=0.0) <= _ZERO * size) & (size > 0)
    report = attached.report
    report.residual, report.zero = torch.as_tensor(residual), torch.as_tensor(zero)
    report.solved = torch.as_tensor((residual <= _SOLVED) & ~lost)

    def of_another() -> np.ndarray:
        other = np.tile(np.cos(np.arange(x.shape[1]) + 1.0), (len(x), 1))
        return _pull_back(attached, x, y, other, np.zeros_like(y))[0][:, :-1]

    attached.watch(zero[(size > 0) & ~lost], of_another)
    _warn_of_failures(residual, lost)
    return torch.as_tensor(gradient)


def _pull_back(
    attached: Attached, x: np.ndarray, y: np.ndarray, gx: np.ndarray, gy: np.ndarray
) -> tuple[Float[np.ndarray, "B p"], Float[np.ndarray, " B"]]:
    """The cotangents of the parameter vector, and the residual of the rule; zero where a sample is lost."""
    canonical, good = attached.programs.canonical, np.flatnonzero(~attached.lost)
    if len(good) == len(x):
        terms, residual = attached.rule(gx, gy)
        parts = [_of_data(canonical, t.a, t.c, x if t.x is None else t.x, y if t.y is None else t.y) for t in terms]
        return functools.reduce(np.add, parts), residual
    gradient, residual = np.zeros((len(x), canonical.q.map.shape[1])), np.zeros(len(x))
    if not len(good):
        return gradient, residual
    terms, residual[good] = attached.rule(gx[good], gy[good])
    for term in terms:
        point = x[good] if term.x is None else term.x
        multipliers = y[good] if term.y is None else term.y
        gradient[good] += _of_data(canonical, term.a, term.c, point, multipliers)
    return gradient, residual


def _of_data(
    canonical: Canonical, a: np.ndarray, c: np.ndarray, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "B p"]:
    """The products of the cotangents of the data with what depends on the parameters."""
    gradient = canonical.q.pull_back(np.concatenate([-a, np.zeros((len(a), 1))], 1))
    entries = canonical.Ab.moving
    rows, columns = entries.rows, entries.columns
    wide_a, wide_x = (np.concatenate([part, np.full((len(x), 1), end)], 1) for part, end in ((a, 0.0), (x, 1.0)))
    # The entries are those of [-A, b]: c for b stands in the last column, where x continues by 1.
    of_entries = y[:, rows] * wide_a[:, columns] + c[:, rows] * wide_x[:, columns]
    gradient += entries.pull_back(of_entries)
    if canonical.P is not None:
        quadratic = canonical.P.moving
        gradient -= quadratic.pull_back(a[:, quadratic.rows] * x[:, quadratic.columns])
    return gradient


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
