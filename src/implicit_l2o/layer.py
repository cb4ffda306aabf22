"""The table of contents of the core: `fixed_point`, `solve` and `ImplicitLayer`."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from implicit_l2o import _batch
from implicit_l2o._solution import ConvergenceWarning, FixedPoint, Solution, Status, failed
from implicit_l2o.backward.base import AbstractBackward, OutsideAutocast
from implicit_l2o.backward.jfb import JFB
from implicit_l2o.certificates.base import Certificate, CertificateReport, Inference, certify
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Map, check_start
from implicit_l2o.solvers.krasnoselskii_mann import KrasnoselskiiMann
from implicit_l2o.splittings.base import AbstractSplitting

OnFailure: TypeAlias = Literal["warn", "raise", "ignore"]


class ConvergenceError(RuntimeError):
    """A solve ended short of its tolerance and `on_failure="raise"` was asked for."""


def fixed_point(
    T: Map,
    z0: Float[Tensor, "B *shape"],
    *,
    solver: AbstractFixedPointSolver | None = None,
    backward: AbstractBackward | None = None,
    on_failure: OnFailure = "warn",
) -> FixedPoint:
    """Find `z = T(z)` for every sample, with the gradient of the chosen backward mode.

    The result is differentiable in whatever tensors `T` captures, whenever gradients are enabled (training or not). The
    solve and its derivatives run outside autocast, in the dtype of `z0`.

    Args:
        T: maps `(B, *shape)` to itself, sample by sample. One with `restrict(index) -> T` lets finished samples be
            dropped; a bare closure is frozen, and its failed samples get a zero cotangent.
        z0: the start, `(B, *shape)`.
        solver: how to iterate and when to stop; None takes `KrasnoselskiiMann()`.
        backward: None takes `JFB()`.
        on_failure: what to do about samples that did not converge, besides their status: `"warn"` (a
            `ConvergenceWarning`, but not for a tolerance of zero, which asks for `max_steps`), `"raise"` or `"ignore"`.

    Raises:
        ConvergenceError: with `on_failure="raise"`.
        ValueError, TypeError: `z0` or what `T` returns has the wrong shape or dtype.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> b = torch.ones(2, 3, requires_grad=True)
        >>> point = il2o.fixed_point(lambda z: 0.5 * z + b, torch.zeros(2, 3), backward=il2o.Implicit())
        >>> point.z.sum().backward()
        >>> b.grad[0].round(decimals=3)
        tensor([2., 2., 2.])
    """
    solver, backward = _defaults(solver, backward)
    check_start(z0)
    if not callable(T):
        raise TypeError(f"T must be callable, z -> T(z); got {_shown(T)}.")
    with _batch.without_autocast(z0.device):
        point = backward.run(T, z0, solver)
    point = replace(point, z=_outside_autocast(point.z))
    report(point, solver, on_failure)
    return point


def solve(
    splitting: AbstractSplitting,
    x0: Float[Tensor, "B *shape"],
    *,
    solver: AbstractFixedPointSolver | None = None,
    backward: AbstractBackward | None = None,
    on_failure: OnFailure = "warn",
) -> Solution:
    """Solve the splitting's problem for every sample; `x = R(z)` at the fixed point `z` of `T`.

    Args:
        splitting: the problem and its operator `T`.
        x0: starting guess, `(B, *shape)`; its dtype and device are those of the solve.
        solver: how to iterate and when to stop; None takes `KrasnoselskiiMann()`.
        backward: None takes `JFB()`.
        on_failure: as in `fixed_point`.

    Raises:
        ConvergenceError: with `on_failure="raise"`.
        ValueError: the problem does not fit `x0`, or the relaxation is outside what the splitting allows.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> nearest = il2o.QuadraticCost(linear=torch.tensor([[-0.5, -2.0]]), diagonal=1.0)
        >>> solution = il2o.solve(il2o.ForwardBackward(il2o.Problem(F=nearest, g=il2o.Box(0.0, 1.0))), torch.zeros(1, 2))
        >>> solution.x
        tensor([[0.5000, 1.0000]])
    """
    solver, backward = _defaults(solver, backward)
    if not isinstance(splitting, AbstractSplitting):
        raise TypeError(f"solve takes a splitting such as DavisYin(problem); got {type(splitting).__name__}.")
    if not isinstance(x0, Tensor) or x0.ndim == 0:
        raise TypeError(f"x0 must be a tensor (B, *shape) with a batch dimension; got {_shown(x0)}.")
    _check_relaxation(splitting, solver)
    with _batch.without_autocast(x0.device):
        point = fixed_point(splitting, splitting.init(x0), solver=solver, backward=backward, on_failure=on_failure)
        x = _readout(splitting, point)
    return Solution(
        x=_outside_autocast(x),
        z=point.z,
        status=point.status,
        residual=point.residual,
        steps=point.steps,
        tolerance=point.tolerance,
        trace=point.trace,
        adjoint=point.adjoint,
    )


class ImplicitLayer(nn.Module):
    """A network whose output solves a problem: `theta = encoder(d)`, `x(d)` the solution of `build(theta)`.

    Gradients follow `torch.is_grad_enabled()`, never `training`; the layer has no hooks and may be called any number of
    times before `backward`. An input sample with NaN or inf is replaced by zeros before the encoder, marked NONFINITE
    and gives no gradient. Autocast concerns the encoder alone: from `theta`, made float32, to `x` nothing is rounded to
    16 bits.

    Args:
        encoder: maps data to the parameters `theta` of the problem (a tensor or any structure that `build` understands).
        build: makes the splitting from `theta`; called in every forward pass, so factor what is constant outside.
        x0: makes the starting guess from `theta`.
        solver: as in `solve`.
        backward: as in `solve`.
        certificates: checked by `infer`.
        on_failure: as in `solve`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> simplex = il2o.AffineSet(torch.ones(1, 3), torch.ones(1))
        >>> layer = il2o.ImplicitLayer(
        ...     encoder=torch.nn.Linear(4, 3),
        ...     build=lambda w: il2o.DavisYin(
        ...         il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(lower=0.0), h=simplex)),
        ...     x0=torch.zeros_like,
        ... )
        >>> solution = layer(torch.randn(2, 4))
        >>> tuple(solution.x.shape), bool((solution.x >= 0).all())
        ((2, 3), True)
    """

    def __init__(
        self,
        encoder: nn.Module,
        build: Callable[[Any], AbstractSplitting],
        x0: Callable[[Any], Tensor],
        *,
        solver: AbstractFixedPointSolver | None = None,
        backward: AbstractBackward | None = None,
        certificates: Sequence[Certificate] = (),
        on_failure: OnFailure = "warn",
    ) -> None:
        super().__init__()
        _check_on_failure(on_failure)
        self.encoder = encoder
        self.build = build
        self.x0 = x0
        self.solver, self.backward = _defaults(solver, backward)
        self.certificates = tuple(certificates)
        self.on_failure: OnFailure = on_failure

    def forward(self, d: Tensor) -> Solution:
        """The solution for a batch of data, `d` `(B, ...)`."""
        return self._forward(d)[0]

    def infer(self, d: Tensor) -> tuple[Solution, CertificateReport]:
        """The solution without a graph, and the report of the layer's certificates on it."""
        with torch.no_grad():
            solution, splitting = self._forward(d)
            inference = Inference.of(solution, problem=splitting.problem, data=d)
            return solution, certify(self.certificates, inference)

    def inference(self, d: Tensor) -> Inference:
        """The solution together with its problem and its data: what losses and measures of a training take.

        Like `forward` it carries gradients when they are enabled.

        Example:
            >>> import torch, implicit_l2o as il2o
            >>> nearest = lambda y: il2o.Problem(F=il2o.QuadraticCost(linear=-y, diagonal=1.0), g=il2o.Box(0.0, 1.0))
            >>> layer = il2o.ImplicitLayer(
            ...     torch.nn.Linear(4, 3), lambda y: il2o.ForwardBackward(nearest(y)), torch.zeros_like
            ... )
            >>> inference = layer.inference(torch.randn(2, 4))
            >>> inference.x.requires_grad, il2o.ConstraintViolation()(inference).tolist()
            (True, [0.0, 0.0])
        """
        solution, splitting = self._forward(d)
        return Inference.of(solution, problem=splitting.problem, data=d)

    def _forward(self, d: Tensor) -> tuple[Solution, AbstractSplitting]:
        if not isinstance(d, Tensor):
            raise TypeError(f"ImplicitLayer takes data as one tensor (B, ...); got {type(d).__name__}.")
        if d.ndim == 0:
            raise ValueError("ImplicitLayer needs data with a batch dimension: (B, ...); got a 0-d tensor.")
        sound = _batch.finite(d) if d.is_floating_point() else torch.ones(d.shape[0], dtype=torch.bool, device=d.device)
        theta = self.encoder(torch.where(_batch.expand(sound, d), d, torch.zeros_like(d)))
        autocast = torch.is_autocast_enabled(d.device.type)
        with _batch.without_autocast(d.device):
            theta = tree_map(_to_float32, theta) if autocast else theta
            splitting = self.build(theta)
            solution = solve(splitting, self.x0(theta), solver=self.solver, backward=self.backward, on_failure="ignore")
        if _batch.exporting() or not bool(sound.all()):
            solution = _mark_unsound(solution, sound)
        report(solution, self.solver, self.on_failure)
        return solution, splitting


def _defaults(
    solver: AbstractFixedPointSolver | None, backward: AbstractBackward | None
) -> tuple[AbstractFixedPointSolver, AbstractBackward]:
    solver = KrasnoselskiiMann() if solver is None else solver
    backward = JFB() if backward is None else backward
    if not isinstance(solver, AbstractFixedPointSolver):
        raise TypeError(f"solver must be an AbstractFixedPointSolver such as Anderson(); got {_shown(solver)}.")
    if not isinstance(backward, AbstractBackward):
        raise TypeError(f"backward must be an AbstractBackward such as JFB(); got {_shown(backward)}.")
    return solver, backward


def _shown(value: object) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)


def _to_float32(part: Any) -> Any:
    """A tensor of 16 bits as float32, also inside a dataclass; anything else as it is."""
    if isinstance(part, Tensor):
        return part.float() if part.dtype in (torch.bfloat16, torch.float16) else part
    if not is_dataclass(part) or isinstance(part, type):
        return part
    return replace(part, **{f.name: tree_map(_to_float32, getattr(part, f.name)) for f in fields(part) if f.init})


def _outside_autocast(x: Tensor) -> Tensor:
    return OutsideAutocast.apply(x) if x.requires_grad else x  # pyright: ignore[reportReturnType]


def _mark_unsound(solution: Solution, sound: Bool[Tensor, " B"]) -> Solution:
    """Samples whose data were not finite: status NONFINITE, infinite residual, no gradient."""
    keep = _batch.expand(sound, solution.x)
    keep_z = _batch.expand(sound, solution.z)
    return replace(
        solution,
        x=torch.where(keep, solution.x, solution.x.detach()),
        z=torch.where(keep_z, solution.z, solution.z.detach()),
        status=torch.where(sound, solution.status, int(Status.NONFINITE)),
        residual=torch.where(sound, solution.residual, torch.inf),
    )


def _readout(splitting: AbstractSplitting, point: FixedPoint) -> Tensor:
    """`R(z)`, recorded on the good samples only; a failed sample's answer is finite and carries no gradient."""
    bad = failed(point.status)
    if _batch.exporting():
        x = splitting.readout(point.z)
        return torch.where(_batch.expand(_batch.finite(x), x), x, 0.0)
    if not bool(bad.any()):
        return splitting.readout(point.z)
    with torch.no_grad():
        x = splitting.readout(point.z)
        x = torch.where(_batch.expand(_batch.finite(x), x), x, 0.0)
    good = (~bad).nonzero().squeeze(-1)
    if not torch.is_grad_enabled() or len(good) == 0:
        return x
    return x.index_copy(0, good, splitting.restrict(good).readout(point.z[good]))


def _check_relaxation(splitting: AbstractSplitting, solver: AbstractFixedPointSolver) -> None:
    if solver.relaxation <= 1 or _batch.exporting():
        return
    limit = 1.0 / splitting.averagedness
    if not solver.relaxation < limit:
        raise ValueError(
            f"{type(splitting).__name__} with this step allows 0 < relaxation < {limit:.6g}; got "
            f"relaxation={solver.relaxation:.6g} in {type(solver).__name__}: lower it, or take a smaller step."
        )


def _check_on_failure(on_failure: object) -> None:
    if on_failure not in ("warn", "raise", "ignore"):
        raise ValueError(f'on_failure must be "warn", "raise" or "ignore"; got {on_failure!r}.')


def report(point: FixedPoint | Solution, solver: AbstractFixedPointSolver, on_failure: OnFailure) -> None:
    """Warn or raise about samples that did not converge, quoting the first of each kind."""
    _check_on_failure(on_failure)
    if on_failure == "ignore" or _batch.exporting():
        return
    missed = ~point.converged
    if on_failure == "warn" and solver.stopping.atol == 0 and solver.stopping.rtol == 0:
        missed = failed(point.status)  # a tolerance of zero asks for max_steps, and got them
    if not bool(missed.any()):
        return
    kinds = {int(status) for status in point.status[missed].tolist()}
    first = [int((missed & (point.status == kind)).nonzero()[0]) for kind in sorted(kinds)]
    text = f"{int(missed.sum())} of {len(missed)} samples did not converge. " + " ".join(map(point.message, first))
    if on_failure == "raise":
        raise ConvergenceError(text)
    warnings.warn(text, ConvergenceWarning, stacklevel=4)
