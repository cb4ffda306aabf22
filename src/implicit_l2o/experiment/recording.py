"""The iterates of an inference, recorded as the library's own loop makes them, and read out one by one.

A backward mode receives the solve (the map, the start, the solver), so one that wraps the model's own sees every solve
of an inference without knowing the model. `record` lets it watch the solver; `replay` lets it return recorded iterates in
place of a solution, all of them as one batch, so that the rest of the model, the certificates included, treats each as if
the solver had stopped there.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.training import AbstractTask
from implicit_l2o.training.callbacks._implicit import backward_modes, implicit_modules

_FINER = 4  # times as many iterates are kept as are shown, for the number of iterations is known only at the end
_AT_ONCE = 32  # iterates that are read out in one batch


@dataclass(frozen=True, eq=False, kw_only=True)
class Recording:
    """One solve of one sample.

    Attributes:
        order: which of the solves of the inference it was.
        steps: iterations of the kept iterates, from 0, ascending; the last one is that of the returned point.
        z: `(F, *latent)` the iterates, `T` applied so many times by the solver; the last one is the returned point.
        point: what the solve returned.
        best: the solver ran out of steps and returned an earlier iterate than its last one.
        sought: there was a tolerance to meet.
    """

    order: int
    steps: tuple[int, ...]
    z: Float[Tensor, "F *latent"]
    point: il2o.FixedPoint
    best: bool
    sought: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Frames:
    """The kept iterates as the model answers from them.

    Attributes:
        inference: all frames as one batch.
        solved: `(F,)` whether the residual at the frame meets the tolerance of the solve.
        violation: `(F,)` distance to the constraints; None where the problem has none or there is none.
        tolerance: of the last frame.
    """

    inferences: tuple[il2o.Inference, ...]
    solved: Tensor
    violation: Float[Tensor, " F"] | None
    tolerance: float


def spaced(last: int, count: int) -> list[int]:
    """About `count` whole numbers from 1 to `last`, both among them, their ratios as equal as whole numbers allow.

    Example:
        >>> from implicit_l2o.experiment.recording import spaced
        >>> spaced(5, 60), spaced(1000, 7)
        ([1, 2, 3, 4, 5], [1, 3, 10, 32, 100, 316, 1000])
    """
    if last <= count:
        return list(range(1, last + 1))
    if count < 2:
        return [last]
    points = count
    found: np.ndarray = np.array([], dtype=int)
    while points <= 8 * count:  # small numbers coincide once rounded
        more = np.unique(np.geomspace(1, last, points).round().astype(int))
        if len(more) > count:
            break
        found, points = more, points + 1
    return [int(step) for step in found]


@torch.no_grad()
def record(task: AbstractTask, d: Tensor, *, frames: int) -> Recording | None:
    """Infer one sample and keep what its last solve went through; None where nothing was solved.

    Args:
        task: in evaluation mode.
        d: one input, `(1, *shape)`.
        frames: how many iterates, about.
    """
    solves: list[Recording] = []
    modes = backward_modes(implicit_modules(task), lambda mode: _Recorder(mode, frames, solves))
    with modes, iterating(task), _silent():
        task.infer(d)
    return solves[-1] if solves else None


@torch.no_grad()
def replay(task: AbstractTask, d: Tensor, recording: Recording) -> Frames:
    """What the model answers from each recorded iterate.

    Args:
        task: as for `record`.
        d: the same input.
        recording: of it.
    """
    parts = recording.z.split(_AT_ONCE)
    inferences, violations, solved = [], [], []
    tolerance = 0.0
    for z in parts:
        played = _Replayed(recording.order, z)
        modes = backward_modes(implicit_modules(task), played.instead)
        with modes, iterating(task), _silent():
            inference = task.infer(d.expand(len(z), *d.shape[1:]))
        inferences.append(inference)
        violations.append(_violation(inference, played.T, z))
        solved.append(played.met)
        tolerance = played.tolerance
    known = [part for part in violations if part is not None]
    return Frames(
        inferences=tuple(inferences),
        solved=torch.cat(solved),
        violation=torch.cat(known) if len(known) == len(parts) else None,
        tolerance=tolerance,
    )


@contextmanager
def iterating(task: AbstractTask) -> Iterator[None]:
    """Layers that would begin at the exact solution of a compiled solver iterate from their usual start meanwhile."""
    names = _exact_switches(task)
    former = [getattr(part, name) for part, name in names]
    try:
        for part, name in names:
            setattr(part, name, False)
        yield
    finally:
        for (part, name), value in zip(names, former, strict=True):
            setattr(part, name, value)


def begins_exact(task: AbstractTask) -> bool:
    """Whether a layer of the model begins at the exact solution of a compiled solver, outside `iterating`."""
    return any(getattr(part, name) for part, name in _exact_switches(task))


def _exact_switches(task: AbstractTask) -> list[tuple[Any, str]]:
    from implicit_l2o.games import EquilibriumLayer

    kinds: list[tuple[type, str]] = [(il2o.LPLayer, "polish"), (EquilibriumLayer, "exact")]
    return [(part, name) for kind, name in kinds for part in task.modules() if isinstance(part, kind)]


@contextmanager
def _silent() -> Iterator[None]:
    """The page says of each solve how it ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)
        yield


class _Watch(il2o.AbstractFixedPointSolver):
    """A solver that keeps the images `T(z)` of some iterations; otherwise the one that it is given.

    The count is part of the state: the loop may go back and take a few iterations again.
    """

    def __init__(self, solver: il2o.AbstractFixedPointSolver, kept: Sequence[int]) -> None:
        self.solver = solver
        self.stopping = solver.stopping
        self.relaxation = solver.relaxation
        self.kept = frozenset(kept)
        self.images: dict[int, Tensor] = {}
        self.newest: Tensor | None = None
        self._make: Any = tuple

    def init(self, z0: Float[Tensor, "B *shape"]) -> tuple[Tensor, ...]:
        """A count of zero before the solver's own state."""
        state = self.solver.init(z0)
        self._make = getattr(type(state), "_make", tuple)  # a named tuple stays one
        return (torch.zeros(len(z0), dtype=torch.int64, device=z0.device), *state)

    def update(
        self, z: Float[Tensor, "B *shape"], Tz: Float[Tensor, "B *shape"], state: Any
    ) -> tuple[Float[Tensor, "B *shape"], tuple[Tensor, ...]]:
        """The solver's own."""
        count = state[0] + 1
        step = int(count[0])
        if step in self.kept:
            self.images[step] = Tz.detach()
        self.newest = Tz.detach()
        following, inner = self.solver.update(z, Tz, self._make(state[1:]))
        return following, (count, *inner)


@dataclass(frozen=True, eq=False)
class _Recorder(il2o.AbstractBackward):
    """The model's own mode, with a solver that is watched."""

    mode: il2o.AbstractBackward
    frames: int
    solves: list[Recording] = field(repr=False)

    def run(self, T: Any, z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver) -> il2o.FixedPoint:
        """As the mode does; one that applies `T` without the solver is recorded step by step by a plain iteration."""
        if isinstance(self.mode, il2o.Unrolled):
            stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=self.mode.steps)
            watch = _Watch(il2o.KrasnoselskiiMann(stopping), spaced(self.mode.steps, _FINER * self.frames))
            il2o.JFB().run(T, z0, watch)
        else:
            watch = _Watch(copy.copy(solver), spaced(solver.stopping.max_steps, _FINER * self.frames))
        point = self.mode.run(T, z0, solver if isinstance(self.mode, il2o.Unrolled) else watch)
        self.solves.append(self._recording(z0, watch, point))
        return point

    def _recording(self, z0: Tensor, watch: _Watch, point: il2o.FixedPoint) -> Recording:
        end = max(int(point.steps[0]), 1)
        kept = np.array(sorted(step for step in watch.images if step < end), dtype=int)
        wanted = [step for step in spaced(end, self.frames) if step < end]
        chosen = sorted({int(kept[np.abs(kept - step).argmin()]) for step in wanted}) if len(kept) else []
        images = [z0, *(watch.images[step] for step in chosen), point.z.detach()]
        atol, rtol = watch.stopping.tolerances(z0.dtype)
        newest = watch.newest
        return Recording(
            order=len(self.solves),
            steps=(0, *chosen, end),
            z=torch.cat([image.detach() for image in images]),
            point=point,
            best=newest is not None and int(point.status[0]) == il2o.Status.MAX_STEPS and not newest.equal(point.z),
            sought=atol + rtol > 0,
        )


class _Replayed:
    """What the solves of one inference return: the recorded iterates in place of one of them, the rest as ever."""

    def __init__(self, order: int, z: Tensor) -> None:
        self.order, self.z = order, z
        self.calls = 0
        self.T: Any = None
        self.met = torch.zeros(len(z), dtype=torch.bool)
        self.tolerance = 0.0

    def instead(self, mode: il2o.AbstractBackward) -> il2o.AbstractBackward:
        """Of a model's mode."""
        return _Instead(mode, self)

    def point(self, T: Any, solver: il2o.AbstractFixedPointSolver) -> il2o.FixedPoint:
        """The iterates as if each were a solution, so that certificates judge what was measured at it and nothing else."""
        self.T, z = T, self.z
        residual = torch.linalg.vector_norm((T(z) - z).flatten(1), dim=1)
        tolerance = solver.stopping.permitted(T, z)
        self.met = solver.stopping.met(T, z, residual)
        self.tolerance = float(tolerance[-1])
        steps = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        status = torch.full_like(steps, int(il2o.Status.CONVERGED))
        return il2o.FixedPoint(z=z, last=z, status=status, residual=residual, steps=steps, tolerance=tolerance)


@dataclass(frozen=True, eq=False)
class _Instead(il2o.AbstractBackward):
    mode: il2o.AbstractBackward
    played: _Replayed

    def run(self, T: Any, z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver) -> il2o.FixedPoint:
        """The mode's own solve, or the iterates."""
        self.played.calls += 1
        if self.played.calls - 1 != self.played.order:
            return self.mode.run(T, z0, solver)
        return self.played.point(T, solver)


def _violation(inference: il2o.Inference, T: Any, z: Tensor) -> Float[Tensor, " F"] | None:
    """At the model's own problem over `x` where it states one, else at that of the splitting."""
    problem, x = inference.problem, inference.x
    if problem is None and isinstance(T, il2o.AbstractSplitting):
        problem, x = T.problem, T.readout(z)
    if problem is None or not any(isinstance(term, il2o.AbstractSet) for term in (problem.g, problem.h, problem.l)):
        return None
    return il2o.ConstraintViolation()(il2o.Inference(x=x, problem=problem))
