"""Exact implicit differentiation: solve the adjoint equation `u = v + u dT/dz` (implicit function theorem)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._solution import AdjointReport, ConvergenceWarning, FixedPoint, Status
from implicit_l2o.backward.base import AbstractBackward, CotangentRule, attach, pullback, pullback_and_pushforward
from implicit_l2o.backward.gmres import GMRES
from implicit_l2o.backward.linear import LinearSolve
from implicit_l2o.backward.normal_cg import NormalCG
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Map, iterate

_THIRD = (
    "Implicit has first and second derivatives; a third one was asked for (create_graph=True in a double backward)."
)

AdjointSolver: TypeAlias = GMRES | NormalCG | AbstractFixedPointSolver


@dataclass(frozen=True)
class Implicit(AbstractBackward):
    """The cotangent `v` becomes `v (I - J)^{-1}`, `J = dT/dz` at the fixed point: the exact gradient.

    The adjoint equation is solved per sample, to a tolerance relative to the cotangent (so the scale of the loss does not
    matter). A sample whose adjoint solve fails takes the JFB gradient, with a `ConvergenceWarning`. How it went stands
    in `FixedPoint.adjoint` after `backward()`. Double backward is supported; a third derivative is refused.

    Args:
        solver: `GMRES(...)`; or `NormalCG(...)`, conjugate gradient on the normal equations; or a fixed-point solver of
            the library (such as `Anderson`) that iterates `u <- v / |v| + u J`, whose `stopping` then is relative to
            the cotangent.

    Raises:
        TypeError: `solver` is none of these.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> b = torch.ones(1, 1, requires_grad=True)
        >>> point = il2o.fixed_point(lambda z: 0.5 * z + b, torch.zeros(1, 1), backward=il2o.Implicit())
        >>> point.z.sum().backward()
        >>> b.grad
        tensor([[2.]])
        >>> [il2o.Status(int(s)).name for s in point.adjoint.status]
        ['CONVERGED']
    """

    solver: AdjointSolver = field(default_factory=GMRES)

    def __post_init__(self) -> None:
        if not isinstance(self.solver, AdjointSolver):
            raise TypeError(
                f"Implicit takes a GMRES, a NormalCG or a fixed-point solver such as Anderson(); got {self.solver!r}."
            )

    def run(self, T: Map, z0: Float[Tensor, "B *shape"], solver: AbstractFixedPointSolver) -> FixedPoint:
        """Iterate without a graph, then attach one step under the exact rule."""
        point = iterate(T, z0, solver)
        report = AdjointReport()
        batch = len(point.z)
        z = attach(
            T,
            point,
            lambda part, last, index: _attach_newton(part, last, _Adjoint(self.solver, _Journal(report, index, batch))),
        )
        return point.with_z(z, adjoint=report)


def _attach_newton(T: Map, last: Tensor, adjoint: "_Adjoint") -> Tensor:
    """`z = T(z*)`, with the derivatives of two Newton steps for `z = T(z)`.

    One step `a = z* + (I - J)^{-1} (T(z*) - z*)` from a constant `z*` has the exact first derivative; a second step from
    `a` has the exact second one too. Without `create_graph` the first step is left out of the backward pass.
    """
    silent = _Adjoint(adjoint.solver, None)
    first = CotangentRule.apply(T(last), T, silent, None)
    order = _Order()
    start = _Gate.apply(first, last, order)
    return _NewtonStep.apply(T(start), start, T, adjoint, order)


@dataclass
class _Order:
    """Whether any backward pass through this point asked for a graph."""

    second: bool = False


class _Gate(torch.autograd.Function):
    """The value of `last` with the gradient of `first`, which is let through for second derivatives only."""

    @staticmethod
    def forward(first: Tensor, last: Tensor, order: _Order) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The value."""
        return last.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the switch."""
        ctx.order = inputs[2]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """At first order the Newton step's dependence on its start cancels, so nothing is passed on."""
        return (v if ctx.order.second else None), None, None


class _NewtonStep(torch.autograd.Function):
    """The value `image = T(start)` with the derivatives of `start + (I - J)^{-1} (T(start) - start)`."""

    @staticmethod
    def forward(image: Tensor, start: Tensor, T: Map, adjoint: "_Adjoint", order: _Order) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The value."""
        return image.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the start: unpacked in a differentiable backward it carries its own gradient."""
        _, start, ctx.T, ctx.adjoint, ctx.order = inputs
        ctx.save_for_backward(start)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`u = v (I - J)^{-1}` for the image, `v - u` for the start."""
        (start,) = ctx.saved_tensors
        ctx.order.second |= torch.is_grad_enabled()
        with torch.autocast(start.device.type, enabled=False):
            u = ctx.adjoint(ctx.T, start, v)
        return u, (v - u if ctx.order.second else None), None, None, None


@dataclass(frozen=True)
class _Adjoint:
    """The rule `v -> u` with `u = v + u J`, itself differentiable once more."""

    solver: AdjointSolver
    journal: "_Journal | None"  # None: a solve of second derivatives, which nobody asks about

    def __call__(self, T: Map, z: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            solve = self._solve(T, z, v)
        if self.journal is not None:
            self.journal.write(solve)
        _warn_of_failures(solve)
        good = _batch.expand(solve.converged, v)
        u = torch.where(good, solve.u.reshape(v.shape), v.detach())
        if not torch.is_grad_enabled():
            return u
        # The adjoint equation is a fixed point of the linear map A(u) = v + u J: one attached application of A under this
        # same rule makes its solution differentiable in v and, through J, in the parameters and in z.
        image = T(z)

        def A(u: Tensor) -> Tensor:
            (uJ,) = torch.autograd.grad(image, z, u, create_graph=True, allow_unused=True)
            return v if uJ is None else v + uJ

        exact = CotangentRule.apply(A(u.detach()), A, _Adjoint(self.solver, None), _THIRD)
        return torch.where(good, exact, v)

    def _solve(self, T: Map, z: Tensor, v: Tensor) -> LinearSolve:
        if isinstance(self.solver, NormalCG):
            vjp, jvp = pullback_and_pushforward(T, z)
            return self.solver.solve(_minus(vjp, v), _minus(jvp, v), _batch.flatten(v))
        vjp = pullback(T, z)
        if isinstance(self.solver, GMRES):
            return self.solver.solve(_minus(vjp, v), _batch.flatten(v))
        size = _batch.expand(_batch.norm(v), v)
        unit = torch.where(size > 0, v / size, 0.0)
        point = iterate(lambda u: unit + vjp(u), unit, self.solver)
        # At the rounding floor the adjoint is as exact as the dtype allows: better than falling back to JFB.
        return LinearSolve(
            _batch.flatten(point.z * size), point.converged | point.precision, point.residual, point.steps
        )


def _minus(product: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
    """`u -> u - product(u)` on flat samples."""
    return lambda u: u - _batch.flatten(product(u.reshape(like.shape)))


@dataclass(frozen=True)
class _Journal:
    """Writes how a solve for the samples `index` went into the report on the whole batch; the others took no part."""

    report: AdjointReport
    index: Tensor
    batch: int

    def write(self, solve: LinearSolve) -> None:
        status = torch.where(solve.converged, int(Status.CONVERGED), int(Status.MAX_STEPS))
        self.report.status = self._spread(status, int(Status.ACTIVE))
        self.report.residual = self._spread(solve.residual, 0.0)
        self.report.steps = self._spread(solve.steps, 0)

    def _spread(self, values: Tensor, absent: float) -> Tensor:
        return values.new_full((self.batch,), absent).index_copy(0, self.index, values)


def _warn_of_failures(solve: LinearSolve) -> None:
    if bool(solve.converged.all()):
        return
    samples = (~solve.converged).nonzero().squeeze(-1).tolist()
    shown = ", ".join(map(str, samples[:5])) + (", ..." if len(samples) > 5 else "")
    warnings.warn(
        f"Implicit: the adjoint solve of {len(samples)} of {len(solve.converged)} samples did not converge (samples "
        f"{shown}; worst relative residual {float(solve.residual.nan_to_num(torch.inf).max()):.1e}); they take the JFB "
        "gradient.",
        ConvergenceWarning,
        stacklevel=3,
    )
