"""Forward solves of a batch of cone programs to full accuracy: a solver, then Newton steps on the optimality conditions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int

import implicit_l2o as il2o
from implicit_l2o._numba import has_numba
from implicit_l2o.interop.cvxpy.chunks import Chunks
from implicit_l2o.interop.cvxpy.interior_point import Points, check_options, solve_by_clarabel
from implicit_l2o.interop.cvxpy.kept import KeptSplittings
from implicit_l2o.interop.cvxpy.kkt import KKT
from implicit_l2o.interop.cvxpy.pattern import Pattern, pattern_of
from implicit_l2o.interop.cvxpy.polish import polish, project
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.rounds import avoids_factors, balance, certificates, pays, rough_points, saves_factors
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting

if TYPE_CHECKING:  # it compiles, and needs numba
    from implicit_l2o.interop.cvxpy.chunked import Chunked
    from implicit_l2o.interop.cvxpy.compact import CompactSplitting

ForwardSolver: TypeAlias = Literal["auto", "batched", "splitting", "clarabel"]

_ACCEPTED = 1e-11  # relative residual up to which an answer of the batched method stands
_GOAL = 1e-13  # relative residual at which a polish has nothing left to do
_FEW = 4  # Newton steps, where each takes as long as all of a splitting
_ROUNDS = 6  # of splitting and polish; the weights are balanced in between
_FIRST = 1e-3  # tolerance of the first round of splitting; each one is ten times stricter


@dataclass(frozen=True, eq=False)
class Solved:
    """Points of a batch after polish.

    Attributes:
        points: primal points and `w = s - y`.
        residual: `(B,)` of the optimality conditions, relative to the data and the point.
        kkt: the factored equations at the points where they are at hand; the splitting where they are to be avoided.
    """

    points: Points
    residual: Float[np.ndarray, " B"]
    kkt: "KKT | Chunked | CompactSplitting | None"


@dataclass(frozen=True, eq=False, kw_only=True)
class Forward:
    """How to solve.

    Args:
        solver: "batched", "clarabel", "splitting", or "auto": batched where the cones allow it, which was the fastest one in
            `benchmarks.cvxpy_layers`, after a splitting where P and A are constant and their factors large; Clarabel for the
            samples that these did not solve and for other cones, and splitting from where Clarabel ended for those left.
        options: settings of Clarabel by their names.
        workers: threads of Clarabel.
        steps: Newton steps of the polish.
        tolerance: of the relative residual; above it a sample is not called solved.
        max_steps: of a round of splitting.
        accelerated: whether the splitting takes Anderson's acceleration.
        exact: whether the exact gradient will be asked for, which takes the factors of the polish.
    """

    solver: ForwardSolver
    options: dict[str, Any]
    workers: int | None
    steps: int
    tolerance: float
    max_steps: int = 500
    accelerated: bool = True
    exact: bool = True

    def __call__(self, programs: ConePrograms, start: Points | None, kept: KeptSplittings) -> Solved:
        """Solve, all numbers being finite; `kept` are splittings whose factors may serve again."""
        if self.solver != "splitting":
            check_options(self.options)
        if not len(programs):  # every sample had a NaN
            x, w = np.zeros((0, programs.canonical.n)), np.zeros((0, programs.canonical.m))
            return Solved(Points(x, w, np.zeros(0, int), np.zeros(0, int)), np.zeros(0), None)
        if self.solver == "splitting":
            return self._by_splitting(programs, start)
        if self.solver == "auto" and has_numba() and avoids_factors(programs):
            return self._by_krylov(programs, start, kept)
        pattern = pattern_of(programs.canonical) if self.solver in ("auto", "batched") else None
        # Without a constraint there is one linear equation, and chunks of no rows.
        parts = pattern.parts(len(programs)) if pattern is not None and programs.canonical.m else []
        if pattern is None or not parts:
            return self._by_clarabel(programs, and_splitting=self.solver != "clarabel")
        if len(parts) == 1:
            return self._by_factors(pattern, programs, start, kept)
        index = [np.arange(part.start, part.stop) for part in parts]
        starts = [None if start is None else start.take(part) for part in index]
        own = (programs.take(part) for part in index)
        return _joined([self._by_factors(pattern, *each, kept) for each in zip(own, starts, strict=True)])

    def _by_factors(
        self, pattern: Pattern, programs: ConePrograms, start: Points | None, kept: KeptSplittings
    ) -> Solved:
        """Factors of every sample, or of all samples at first."""
        if self.solver == "auto" and pays(pattern, programs):
            return self._by_shared_splitting(pattern, programs, *rough_points(programs, start, kept))
        return self._by_chunks(pattern, programs)

    def _by_shared_splitting(
        self, pattern: Pattern, programs: ConePrograms, rough: Points, splitting: "CompactSplitting"
    ) -> Solved:
        """Newton steps after a splitting with one factor for all samples; what they do not solve goes the other way."""
        if self.exact or not saves_factors(pattern, programs, int(rough.steps.max())):
            return self._by_polish(pattern, programs, rough)
        solved = replace(self._by_newton(programs, rough, splitting), kkt=None)
        return _others(solved, lambda missed: self._by_polish(pattern, programs.take(missed), rough.take(missed)))

    def _by_polish(self, pattern: Pattern, programs: ConePrograms, rough: Points) -> Solved:
        """A few Newton steps by factors of every sample; the batched method for those that were not solved."""
        solved = self._polished(pattern, programs, pattern.values(programs), rough, steps=min(self.steps, _FEW))
        return _others(solved, lambda missed: self._by_chunks(pattern, programs.take(missed)))

    def _by_krylov(self, programs: ConePrograms, start: Points | None, kept: KeptSplittings) -> Solved:
        """The splitting, and Newton steps by GMRES; Clarabel for those that were not solved."""
        solved = self._by_newton(programs, *rough_points(programs, start, kept))
        return _others(solved, lambda missed: self._by_clarabel(programs.take(missed), and_splitting=True))

    def _by_newton(self, programs: ConePrograms, points: Points, splitting: "CompactSplitting") -> Solved:
        """Newton steps by GMRES."""
        from implicit_l2o.interop.cvxpy.krylov import newton  # which compiles

        x, w = (np.where(np.isfinite(part), part, 0.0) for part in (points.x, points.w))
        scale = sizes(programs, replace(points, x=x, w=w))
        x, w, found = newton(programs, splitting, x, w, steps=min(self.steps, _FEW), goal=_GOAL * scale)
        status = _judged(programs, points.status, found, scale)
        return Solved(Points(x, w, status, points.steps), found / scale, splitting)

    def _by_chunks(self, pattern: Pattern, programs: ConePrograms) -> Solved:
        """Eight samples at a time; those that are not solved to the goal of the polish go to Clarabel."""
        from implicit_l2o.interop.cvxpy import chunked  # which compiles

        values = pattern.values(programs)
        points = chunked.interior_points(pattern, programs, values)
        solved = self._polished(pattern, programs, values, points, steps=self.steps)
        return _others(solved, lambda missed: self._by_clarabel(programs.take(missed), and_splitting=True))

    def _polished(
        self, pattern: Pattern, programs: ConePrograms, values: Chunks, points: Points, *, steps: int
    ) -> Solved:
        """CONVERGED where the optimality conditions hold, MAX_STEPS elsewhere."""
        from implicit_l2o.interop.cvxpy import chunked  # which compiles

        x, w = (np.where(np.isfinite(part), part, 0.0) for part in (points.x, points.w))
        scale = sizes(programs, replace(points, x=x, w=w))
        x, w, found, kkt = chunked.polish(pattern, programs, values, x, w, steps=steps, goal=_GOAL * scale)
        status = _judged(programs, points.status, found, scale)
        return Solved(Points(x, w, status, points.steps), found / scale, kkt)

    def _by_clarabel(self, programs: ConePrograms, *, and_splitting: bool) -> Solved:
        """Clarabel, then the splitting for those that it did not solve."""
        solved = self.judge(programs, solve_by_clarabel(programs, self.options, self.workers))
        missed = np.flatnonzero(solved.points.status == int(il2o.Status.MAX_STEPS))
        if not and_splitting or not len(missed):
            return solved
        other = self._by_splitting(programs.take(missed), solved.points.take(missed))
        better = other.residual < solved.residual[missed]
        # Factors are those of a whole batch, which these no longer are.
        return replace(_put(solved, missed[better], other, better), kkt=None)

    def judge(self, programs: ConePrograms, points: Points) -> Solved:
        """Polish those that have an answer, and judge them."""
        scale = sizes(programs, points)
        lost = np.isin(points.status, [int(il2o.Status.INFEASIBLE), int(il2o.Status.DIVERGED)])
        lost |= ~(np.isfinite(points.x).all(1) & np.isfinite(points.w).all(1))
        x, w = (np.where(lost[:, None], 0.0, part) for part in (points.x, points.w))
        residual = np.full(len(programs), np.inf)
        good = np.flatnonzero(~lost)
        kkt = None
        if len(good):
            own = programs if len(good) == len(programs) else programs.take(good)
            goal = _GOAL * scale[good]
            x[good], w[good], found, kkt = polish(own, x[good], w[good], steps=self.steps, goal=goal)
            residual[good] = found / scale[good]
        status = np.where(residual <= self.tolerance, int(il2o.Status.CONVERGED), int(il2o.Status.MAX_STEPS))
        status = np.where(lost, points.status, status)
        return Solved(Points(x, w, status, points.steps), residual, kkt)

    def _by_splitting(self, programs: ConePrograms, start: Points | None) -> Solved:
        n, m = programs.canonical.n, programs.canonical.m
        x, w = (np.zeros((len(programs), size)) for size in (n, m)) if start is None else (start.x, start.w)
        solved = Solved(Points(x, w, np.full(len(x), int(il2o.Status.MAX_STEPS)), np.zeros(len(x), int)), x[:, 0], None)
        step, steps = 1.0, np.zeros(len(x), int)
        for level in range(_ROUNDS):
            splitting = ConicSplitting.of(programs, step=step)
            stopping = il2o.Stopping(atol=0.0, rtol=_FIRST * 0.1**level, max_steps=self.max_steps, check_every=20)
            solver = il2o.Anderson(stopping, memory=8) if self.accelerated else il2o.KrasnoselskiiMann(stopping)
            with torch.no_grad():
                z0 = splitting.lift(torch.as_tensor(x), torch.as_tensor(w))
                point = il2o.fixed_point(splitting, z0, solver=solver, on_failure="ignore")
                moved = splitting(point.z) - point.z
                x, w = (part.numpy() for part in splitting.point(point.z))
            steps = steps + point.steps.numpy()
            status = np.full(len(x), int(il2o.Status.MAX_STEPS))
            if level >= 1:
                status = certificates(programs, splitting, moved.numpy(), status)
            solved = self.judge(programs, Points(x, w, status, steps))
            if bool((solved.points.status != il2o.Status.MAX_STEPS).all()):
                break
            step *= balance(programs, x, w, solved.points.status == int(il2o.Status.MAX_STEPS))
        return solved


def _judged(
    programs: ConePrograms, status: np.ndarray, found: Float[np.ndarray, " B"], scale: Float[np.ndarray, " B"]
) -> np.ndarray:
    """CONVERGED where the residual `found` says so, else MAX_STEPS."""
    # Relative to a point that runs away, as those of infeasible problems do, every residual is small.
    data = 1.0 + np.sqrt(np.square(programs.q).sum(1) + np.square(programs.b).sum(1))
    ended = status == int(il2o.Status.CONVERGED)
    good = (found <= _ACCEPTED * scale) & (ended | (found <= _ACCEPTED * data))
    return np.where(good, int(il2o.Status.CONVERGED), int(il2o.Status.MAX_STEPS))


def sizes(programs: ConePrograms, points: Points) -> Float[np.ndarray, " B"]:
    """What residuals are relative to: one and the norms of the terms that add up to zero at a solution."""
    s = np.where(np.isfinite(points.w), points.w, 0.0)
    y = s - project(programs, s)
    parts = (programs.q, programs.b, programs.multiply_transposed(y), s)
    return 1.0 + np.max([np.sqrt(np.square(part).sum(1)) for part in parts], 0)


def _others(solved: Solved, another: Callable[[Int[np.ndarray, " k"]], Solved]) -> Solved:
    """Another way for the samples that were not solved, whose places it is told."""
    missed = np.flatnonzero(solved.points.status != int(il2o.Status.CONVERGED))
    return _put(solved, missed, another(missed)) if len(missed) else solved


def _put(whole: Solved, index: np.ndarray, part: Solved, rows: np.ndarray | slice = slice(None)) -> Solved:
    """With another try at some samples: `rows` of it in the places `index`."""
    x, w, status, steps = (getattr(whole.points, name).copy() for name in ("x", "w", "status", "steps"))
    residual = whole.residual.copy()
    for mine, theirs in (
        (x, part.points.x),
        (w, part.points.w),
        (status, part.points.status),
        (residual, part.residual),
    ):
        mine[index] = theirs[rows]
    steps[index] += part.points.steps[rows]
    return Solved(Points(x, w, status, steps), residual, whole.kkt)


def _joined(parts: list[Solved]) -> Solved:
    """One batch of several, whose factors are let go."""
    x, w, status, steps = (
        np.concatenate([getattr(part.points, name) for part in parts]) for name in ("x", "w", "status", "steps")
    )
    return Solved(Points(x, w, status, steps), np.concatenate([part.residual for part in parts]), None)


def spread(solved: Solved, good: Int[np.ndarray, " k"], programs: ConePrograms) -> Solved:
    """The whole batch from its samples `good`, with zeros and NONFINITE where a number was missing."""
    count, points = len(programs), solved.points
    x, w = np.zeros((count, programs.canonical.n)), np.zeros((count, programs.canonical.m))
    status, steps = np.full(count, int(il2o.Status.NONFINITE)), np.zeros(count, int)
    residual = np.full(count, np.inf)
    x[good], w[good], status[good], steps[good] = points.x, points.w, points.status, points.steps
    residual[good] = solved.residual
    return Solved(Points(x, w, status, steps), residual, solved.kkt)
