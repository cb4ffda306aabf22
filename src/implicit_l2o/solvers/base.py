"""What a solver is, when it stops, and the one fixed-point loop of the library.

Longer than most files here: the loop, what it stops on and what it records are one thought and are read together.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._solution import FixedPoint, Status

Map: TypeAlias = Callable[[Tensor], Tensor]
State: TypeAlias = tuple[
    Tensor, ...
]  # every tensor has the batch as its first dimension, so that samples can be dropped

_DEFAULT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 1e-2}
GROWTH = 1e8  # |z| beyond this multiple of its first scale is divergence, not a long way to go
_COMPACT_BELOW = 0.75  # share of active samples under which dropping the others pays for the copy
_ROUNDING = 0.125  # of an ulp: about the error of |T(z) - z| when each entry is rounded, relative to eps |z|
_SETTLING, _SETTLED = 0.5, 1.2  # see `_Loop._runs_away`
_BEST_FACTOR = 0.5  # an unconverged sample returns its best iterate where that is clearly better than its last one


@dataclass(frozen=True)
class Stopping:
    """Stop a sample when `|T(z) - z| <= atol + rtol |x|`, and every sample after `max_steps`.

    `x` is what `z` is read out to where `T` is a splitting, and `z` itself otherwise: the governing sequence of a
    splitting can be larger than the answer by any factor, and so would be the error permitted in the answer. A
    tolerance below the rounding of `z` is never called met, for a step that rounding swallows has residual zero. Nor is
    one by a sample that grows at a constant speed: its `|x|` would exceed any multiple of the residual in the end.

    Args:
        atol: absolute tolerance on the Euclidean residual; None takes 1e-6 in float64, 1e-4 in float32, 1e-2 in bfloat16.
        rtol: relative tolerance; None as for `atol`. Zero for both is legal: run `max_steps`.
        max_steps: most applications of `T` a sample may take, at least 1.
        check_every: residuals are looked at (and the host is synced) at step 1 and at every multiple of this; 1 suits
            an expensive `T`.
        trace: keep the residuals of every check in `FixedPoint.trace`.

    Raises:
        ValueError: a tolerance is negative or not finite, or a count is below 1.

    Example:
        >>> import implicit_l2o as il2o
        >>> il2o.Stopping(atol=1e-6, rtol=0.0, max_steps=2000).max_steps
        2000
    """

    atol: float | None = None
    rtol: float | None = None
    max_steps: int = 1000
    check_every: int = field(default=5, kw_only=True)
    trace: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value) and value >= 0):
                raise ValueError(f"Stopping needs a finite {name} >= 0 (or None); got {name}={value!r}.")
        for name in ("max_steps", "check_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Stopping needs an integer {name} >= 1; got {name}={value}.")

    def tolerances(self, dtype: torch.dtype) -> tuple[float, float]:
        """`(atol, rtol)` for iterates of this dtype."""
        default = _DEFAULT_TOLERANCE[dtype]
        return (
            default if self.atol is None else self.atol,
            default if self.rtol is None else self.rtol,
        )

    def permitted(self, T: Map, z: Float[Tensor, "B *latent"]) -> Float[Tensor, " B"]:
        """The tolerance of each sample at `z`, `atol + rtol |x|`."""
        atol, rtol = self.tolerances(z.dtype)
        readout = getattr(T, "readout", None)
        size = _batch.norm(z if readout is None else readout(z))
        return atol + rtol * torch.where(torch.isfinite(size), size, 0.0)

    def met(self, T: Map, z: Float[Tensor, "B *latent"], residual: Float[Tensor, " B"]) -> Bool[Tensor, " B"]:
        """Which samples meet their tolerance at `z` with this residual, which is known no better than `z` is rounded."""
        rounding = _ROUNDING * torch.finfo(z.dtype).eps * _batch.norm(z)
        return torch.maximum(residual, rounding) <= self.permitted(T, z)

    def is_check(self, step: int) -> bool:
        """Whether residuals are looked at after this step; the same for every batch, so that mates change nothing."""
        return step == 1 or step % self.check_every == 0 or step >= self.max_steps


def check_stopping(stopping: object) -> None:
    """Raise a `TypeError` unless it is a `Stopping`: a bare tolerance is easily passed in its place."""
    if not isinstance(stopping, Stopping):
        raise TypeError(f"stopping must be a Stopping; got {stopping!r}.")


def check_start(z0: object) -> None:
    """Raise a `TypeError` or `ValueError` unless `z0` is a batch of samples in a supported dtype."""
    if not isinstance(z0, Tensor):
        raise TypeError(f"z0 must be a tensor (B, *shape); got {type(z0).__name__}.")
    if z0.dtype not in _DEFAULT_TOLERANCE:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DEFAULT_TOLERANCE)
        raise TypeError(f"z0 must be one of {allowed}; got {z0.dtype}.")
    if z0.ndim == 0:
        raise ValueError("z0 needs a batch dimension: (B, *shape); got a 0-d tensor.")


def check_image(z: Tensor, image: object) -> None:
    """Raise a `TypeError` or `ValueError` unless `T(z)` is a tensor like `z`."""
    if not isinstance(image, Tensor):
        raise TypeError(f"T must return a tensor like its input; got {type(image).__name__}.")
    if image.shape != z.shape or image.dtype != z.dtype:
        raise ValueError(
            f"T must return a tensor like its input, {tuple(z.shape)} of {z.dtype}; got {tuple(image.shape)} of "
            f"{image.dtype}."
        )


class AbstractFixedPointSolver(ABC):
    """How the next iterate is made from `z` and `T(z)`; the loop itself is `iterate`."""

    stopping: Stopping
    relaxation: float

    @abstractmethod
    def init(self, z0: Float[Tensor, "B *shape"]) -> State:
        """The state before the first step: a tuple of tensors with the batch as their first dimension."""

    @abstractmethod
    def update(
        self, z: Float[Tensor, "B *shape"], Tz: Float[Tensor, "B *shape"], state: Any
    ) -> tuple[Float[Tensor, "B *shape"], State]:
        """The next iterate and state; sample by sample. It may overwrite the state's tensors, never `z` or `Tz`."""


# What `_Loop` keeps of each sample in the race.
_PER_SAMPLE = (
    *("z", "previous", "image", "best", "best_residual", "bound", "index", "active"),
    *("earlier_residual", "earlier_size", "later_residual", "later_size"),
)


class _Loop:
    """The mutable bookkeeping of `iterate`: full-batch records, and the samples still in the race (maybe compacted)."""

    def __init__(self, T: Map, z0: Tensor, solver: AbstractFixedPointSolver) -> None:
        self.T, self.solver, self.stopping = T, solver, solver.stopping
        self.whole = T  # for every sample, whatever has been dropped from T
        self.sought = sum(self.stopping.tolerances(z0.dtype)) > 0
        batch, device = z0.shape[0], z0.device
        start = torch.where(_batch.expand(_batch.finite(z0), z0), z0, 0.0)
        # Records of the whole batch.
        self.status = torch.full((batch,), int(Status.ACTIVE), dtype=torch.int64, device=device)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=device)
        self.last, self.point = start.clone(), start.clone()
        self.residual = z0.new_full((batch,), math.inf)
        self.trace: list[Tensor] = []
        # The samples in the race; `index` says where they stand in the batch.
        self.index = torch.arange(batch, device=device)
        self.active = torch.ones(batch, dtype=torch.bool, device=device)
        self.held = False
        self.z, self.state = z0, solver.init(z0)
        self.saved: State = ()  # memory for a copy of the state
        self.previous, self.image = start, z0
        self.best, self.best_residual = start, self.residual.clone()
        # Residual and size at an earlier check, at most half of the steps ago, and at a later one that takes its place.
        self.milestone = 0
        self.earlier_residual, self.earlier_size = self.residual.clone(), self.residual.clone()
        self.later_residual, self.later_size = self.residual.clone(), self.residual.clone()
        self.bound = z0.new_full((batch,), math.inf)

    def run(self) -> FixedPoint:
        step, careful_until = 0, 0
        suspects = torch.zeros_like(self.active)
        while step < self.stopping.max_steps and len(self.index):
            if self.held:  # finished samples that could not be dropped stand still, lest they run into overflow
                self.z = torch.where(_batch.expand(self.active, self.z), self.z, self.last[self.index])
            begin_step = step
            # What a block that breaks goes back to: a solver may overwrite its state.
            alone = step < careful_until or self.stopping.is_check(step + 1)
            begin = (self.z, self.state if alone else self._saved_state())
            while True:  # one block: up to the next check, or a single step when careful
                self.previous, self.image = self.z, self._apply(self.z)
                if step == 0:
                    check_image(self.z, self.image)
                self.z, self.state = self.solver.update(self.previous, self.image, self.state)
                step += 1
                if self.stopping.is_check(step) or step <= careful_until:
                    break
            residual = _batch.norm(self.image - self.previous)
            if step == 1:
                self._set_bound(residual)
            broken = self.active & ~torch.isfinite(residual)
            if step - begin_step > 1 and bool(broken.any()):
                # A sample broke somewhere in the block: go back and replay it step by step, so that the sample is frozen
                # before T is fed what it broke on. Only the suspects are judged off the schedule.
                (self.z, self.state), careful_until, step = begin, step, begin_step
                self.saved = ()
                suspects = broken
                continue
            judged = self.active if self.stopping.is_check(step) else self.active & suspects
            finished = self._judge(judged, residual, step, scheduled=self.stopping.is_check(step))
            if finished is not None:
                suspects = self._drop(finished, suspects)
        self._finish(step)
        return self._result()

    def _saved_state(self) -> State:
        """A copy of the state, in memory that is used again: fresh pages would cost as much as the copy."""
        if [part.shape for part in self.saved] != [part.shape for part in self.state]:
            self.saved = _like(self.state, [part.clone() for part in self.state])
        else:
            for kept, part in zip(self.saved, self.state, strict=True):
                kept.copy_(part)
        return self.saved

    def _apply(self, z: Tensor) -> Tensor:
        """`T(z)`; a `T` that overwrites `z` would make every residual zero."""
        version = None if z.is_inference() else z._version
        image = self.T(z)
        if version is not None and z._version != version:
            raise ValueError(
                "T must not change its argument, nor return a buffer that it overwrites in the next call: z was modified "
                "in place. Return a new tensor."
            )
        return image

    def _set_bound(self, residual: Tensor) -> None:
        # A start near an unstable fixed point leaves it exponentially, and may settle at size one all the same.
        scale = (_batch.norm(self.previous) + residual).clamp(min=1.0)
        largest = math.sqrt(torch.finfo(scale.dtype).max) * 1e-3  # squares must not overflow
        self.bound = (GROWTH * scale).clamp(max=largest)

    def _judge(self, judged: Tensor, residual: Tensor, step: int, *, scheduled: bool) -> Tensor | None:
        """Record the judged samples that ended at this step; which they are, or None when there are none."""
        size = _batch.norm(self.image)
        broken = judged & ~(torch.isfinite(residual) & torch.isfinite(size))
        diverged = judged & ~broken & (size > self.bound)
        close = torch.zeros_like(judged)
        if self.sought:
            met = self.stopping.met(self.T, self.image, residual)
            close = judged & ~broken & ~diverged & met & ~self._runs_away(residual, size)
        if scheduled:
            self._remember(residual, judged & ~broken)
            self._pass_milestone(residual, size, step)
        if not bool((broken | diverged | close).any()):
            return None
        converged = close
        if bool(close.any()):
            # The tolerance is promised at the returned point T(z), so it is measured there.
            at_image = _batch.norm(self.T(self.image) - self.image)
            converged = close & self.stopping.met(self.T, self.image, at_image)
            self._record(converged, Status.CONVERGED, self.previous, self.image, at_image, step)
        self._record(diverged, Status.DIVERGED, self.previous, self.image, residual, step)
        # What T was applied to is finite where its image is not, unless the start itself was not.
        safe = torch.where(_batch.expand(_batch.finite(self.previous), self.previous), self.previous, 0.0)
        self._record(broken, Status.NONFINITE, safe, safe, torch.full_like(residual, math.inf), step)
        return broken | diverged | converged

    def _remember(self, residual: Tensor, sound: Tensor) -> None:
        better = sound & (residual < self.best_residual)
        self.best = torch.where(_batch.expand(better, self.best), self.previous, self.best)
        self.best_residual = torch.where(better, residual, self.best_residual)
        if self.stopping.trace:
            row = self.residual.new_full(self.status.shape, math.nan)
            row[self.index] = torch.where(self.active, residual, math.nan)
            self.trace.append(row)

    def _runs_away(self, residual: Tensor, size: Tensor) -> Tensor:
        """Which samples go on at the speed of half of the steps ago, and grow: a relative tolerance says nothing of them.

        Where there is no fixed point, or it is far away, `T` moves each iterate by about the same vector, so `|x|` grows
        with the steps until any share of it exceeds the residual. A sample that settles has halved its residual.
        """
        return (residual > _SETTLING * self.earlier_residual) & (size > _SETTLED * self.earlier_size)

    def _pass_milestone(self, residual: Tensor, size: Tensor, step: int) -> None:
        if step >= 2 * self.milestone:
            self.earlier_residual, self.earlier_size = self.later_residual, self.later_size
            self.later_residual, self.later_size, self.milestone = residual, size, step

    def _record(self, mask: Tensor, status: Status, last: Tensor, point: Tensor, residual: Tensor, step: int) -> None:
        local = mask.nonzero().squeeze(-1)
        where = self.index[local]
        self.status[where] = int(status)
        self.steps[where] = step
        self.last[where], self.point[where], self.residual[where] = last[local], point[local], residual[local]

    def _drop(self, finished: Tensor, suspects: Tensor) -> Tensor:
        """Take finished samples out of the race: compacted away where `T` can be restricted, held still otherwise."""
        self.active = self.active & ~finished
        keep = self.active.nonzero().squeeze(-1)
        restrict = getattr(self.T, "restrict", None)
        if len(keep) == 0:
            self.index = self.index[keep]
        elif restrict is not None and len(keep) <= _COMPACT_BELOW * len(self.index):
            self.T = restrict(keep)
            self.state = _take(self.state, keep)
            for name in _PER_SAMPLE:
                setattr(self, name, getattr(self, name)[keep])
            self.held = False
            return suspects[keep]
        else:
            self.held = True
        return suspects

    def _finish(self, step: int) -> None:
        """Samples still active ran out of steps: return the best they found, and say if no fixed point can exist."""
        if not len(self.index):
            return
        residual = _batch.norm(self.image - self.previous)
        stale = self.active & (self.best_residual < _BEST_FACTOR * residual)
        last, point = self.previous, self.image
        if bool(stale.any()):
            last = torch.where(_batch.expand(stale, last), self.best, last)
            point = self.T(last)
        at_point = _batch.norm(self.T(point) - point)
        broken = self.active & ~torch.isfinite(at_point)
        met = self.active & ~broken & self.stopping.met(self.T, point, at_point)
        met = met & ~self._runs_away(at_point, _batch.norm(point))
        ran_out = self.active & ~met & ~broken
        infeasible = torch.zeros_like(ran_out)
        find_infeasible = getattr(self.T, "infeasible", None)
        if find_infeasible is not None and bool(ran_out.any()):
            infeasible = ran_out & find_infeasible(self.image)
        self._record(met, Status.CONVERGED, last, point, at_point, step)
        self._record(broken, Status.NONFINITE, last, last, torch.full_like(at_point, math.inf), step)
        self._record(ran_out & ~infeasible, Status.MAX_STEPS, last, point, at_point, step)
        self._record(infeasible, Status.INFEASIBLE, last, point, at_point, step)

    def _result(self) -> FixedPoint:
        return FixedPoint(
            z=self.point,
            last=self.last,
            status=self.status,
            residual=self.residual,
            steps=self.steps,
            tolerance=self.stopping.permitted(self.whole, self.point),
            trace=torch.stack(self.trace) if self.trace else None,
        )


def _take(state: State, index: Tensor) -> State:
    """The state of some samples, in the solver's own kind of tuple."""
    return _like(state, [part[index] for part in state])


def _like(state: State, parts: list[Tensor]) -> State:
    make = getattr(type(state), "_make", tuple)  # a named tuple stays one
    return make(parts)


@torch.no_grad()
def iterate(T: Map, z0: Float[Tensor, "B *shape"], solver: AbstractFixedPointSolver) -> FixedPoint:
    """Iterate to a fixed point of `T`, each sample until it meets the tolerance; no graph is recorded.

    The only fixed-point loop of the library. It owns stopping, status, residuals, step counts and the trace, and drops
    finished samples where `T` has `restrict(index) -> T`. Where `T` has `infeasible(z) -> (B,)`, samples that ran out of
    steps are asked whether a fixed point can exist at all.

    Args:
        T: maps `(B, *shape)` to itself, sample by sample.
        z0: the start, `(B, *shape)`, float64, float32 or bfloat16.
        solver: makes the next iterate, and says when to stop.

    Returns:
        The `FixedPoint`, its `z` being `T` applied once to the solver's last iterate.

    Raises:
        TypeError: `z0` has another dtype.
        ValueError: `z0` has no batch dimension, or `T` changes shape or dtype.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.solvers.base import iterate
        >>> point = iterate(lambda z: 0.5 * z + 1.0, torch.zeros(2, 3), il2o.KrasnoselskiiMann())
        >>> [il2o.Status(int(s)).name for s in point.status]
        ['CONVERGED', 'CONVERGED']
    """
    check_start(z0)
    if _batch.exporting():
        return _all_steps(T, z0.detach(), solver)
    return _Loop(T, z0.detach(), solver).run()


def _all_steps(T: Map, z0: Tensor, solver: AbstractFixedPointSolver) -> FixedPoint:
    """What the loop returns of samples that run all `max_steps`, as one sequence of operations for `torch.export`."""
    stopping, state, z = solver.stopping, solver.init(z0), z0
    best, best_residual = z0, z0.new_full((z0.shape[0],), math.inf)
    last, image, residual = z0, z0, best_residual
    for step in range(1, stopping.max_steps + 1):
        last, image = z, T(z)
        z, state = solver.update(last, image, state)
        if stopping.is_check(step):
            residual = _batch.norm(image - last)
            better = residual < best_residual
            best = torch.where(_batch.expand(better, best), last, best)
            best_residual = torch.where(better, residual, best_residual)
    stale = best_residual < _BEST_FACTOR * residual
    last = torch.where(_batch.expand(stale, last), best, last)
    point = torch.where(_batch.expand(stale, image), T(last), image)
    at_point = _batch.norm(T(point) - point)
    broken = ~(torch.isfinite(at_point) & _batch.finite(point))
    status = torch.where(stopping.met(T, point, at_point), int(Status.CONVERGED), int(Status.MAX_STEPS))
    return FixedPoint(
        z=torch.where(_batch.expand(broken, point), torch.zeros_like(point), point),
        last=last,
        status=torch.where(broken, int(Status.NONFINITE), status),
        residual=torch.where(broken, math.inf, at_point),
        steps=torch.full_like(status, stopping.max_steps),
        tolerance=stopping.permitted(T, point),
    )
