"""Rounds of the splitting with other weights, what they say of problems without a solution, and when they pay."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.chunks import WIDTH
from implicit_l2o.interop.cvxpy.interior_point import Points
from implicit_l2o.interop.cvxpy.kept import KeptSplittings
from implicit_l2o.interop.cvxpy.pattern import Pattern
from implicit_l2o.interop.cvxpy.polish import project
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting

if TYPE_CHECKING:  # it compiles, and needs numba
    from implicit_l2o.interop.cvxpy.compact import CompactSplitting


_ROUNDS = 2
_WEIGHT = (
    3.0  # of the first round: of 1, 2, 3, 5, 10 that of the fewest steps at worst on five problems of 200 unknowns
)
_STEPS = 120  # of a round
_FLAT = 1e-6  # tolerance at which the active set is usually known ...
_CURVED = 1e-8  # ... and from which one Newton step on curved cones goes to the rounding of the data
_UNBALANCED = 3.0  # factor from which on other weights are worth a factorisation

# Seconds, by hand: of a multiplication in a factorisation, a step of the splitting, one of its unknowns, an
# eigendecomposition by the cube of its order.
_MULTIPLICATION, _STEP, _UNKNOWN, _EIGEN = 1 / 12e9, 1.5e-3, 4e-8, 1e-9
_ASSEMBLED = 2.0  # with the making of those blocks
_FACTORS = 6  # half of those of the interior-point method
_KRYLOV = 80  # products of Newton steps and an adjoint by GMRES ...
_PRODUCTS = 1  # ... and those of one Newton step by the splitting's steps, on lasso, huber and bounded least squares


def pays(pattern: Pattern, programs: ConePrograms) -> bool:
    """Whether all steps of a splitting with one factor for all samples take less than half of factors of each in every step.

    So a splitting that does not get there costs half as much as what is tried next.
    """
    factors = _FACTORS * _padded(programs) * pattern.multiplications * _MULTIPLICATION
    return programs.shared and _ROUNDS * _STEPS * _step_of(programs) < factors


def saves_factors(pattern: Pattern, programs: ConePrograms, steps: int) -> bool:
    """Whether GMRES on the map takes less than one factor of each sample, after `steps` steps of a splitting."""
    factor = _padded(programs) * pattern.multiplications * _MULTIPLICATION
    return _PRODUCTS * steps * _step_of(programs) < factor


def avoids_factors(programs: ConePrograms) -> bool:
    """Whether GMRES on the map takes less than one factor, because of the dense blocks of large semidefinite cones."""
    multiplications = sum((k * (k + 1) // 2) ** 3 / 6 for k in programs.cones.semidefinite)
    factor = _ASSEMBLED * _padded(programs) * multiplications * _MULTIPLICATION
    return programs.shared and _KRYLOV * _step_of(programs) < factor


def _padded(programs: ConePrograms) -> int:
    """Samples with those that fill the last chunk."""
    return len(programs) + -len(programs) % WIDTH


def _step_of(programs: ConePrograms) -> float:
    unknowns, cubes = programs.canonical.n + programs.canonical.m, sum(k**3 for k in programs.cones.semidefinite)
    return _STEP + len(programs) * (_UNKNOWN * unknowns + _EIGEN * cubes)


def rough_points(
    programs: ConePrograms, start: Points | None, kept: KeptSplittings
) -> "tuple[Points, CompactSplitting]":
    """Points near the solutions, and the splitting of the last round.

    All have the status MAX_STEPS: where there is no solution the points run away, and move little relative to their size.
    """
    from implicit_l2o.interop.cvxpy.compact import CompactSplitting  # which compiles

    cones, batch = programs.cones, len(programs)
    x, w, steps = np.zeros((batch, programs.canonical.n)), np.zeros((batch, programs.canonical.m)), np.zeros(batch, int)
    if start is not None:
        x, w = start.x, start.w
    tolerance = _FLAT if cones.size == cones.zero + cones.nonnegative else _CURVED
    solver = il2o.Anderson(il2o.Stopping(atol=0.0, rtol=tolerance, max_steps=_STEPS, check_every=5), memory=8)
    weight, splitting, open_ = _WEIGHT, kept.of(CompactSplitting, programs, _WEIGHT), np.ones(batch, bool)
    for _ in range(_ROUNDS):
        with torch.no_grad():
            v0 = splitting.lift(torch.as_tensor(w))
            point = il2o.fixed_point(splitting, v0, solver=solver, on_failure="ignore")
            x, w = (part.numpy() for part in splitting.point(point.z))
        steps = steps + point.steps.numpy()
        open_ = ~point.converged.numpy()
        if not open_.any() or not (np.isfinite(x).all() and np.isfinite(w).all()):
            break
        growth = balance(programs, x, w, open_)
        if not 1 / _UNBALANCED < growth < _UNBALANCED:
            # Not kept: a weight that follows from the data does not come back, and its factors take room.
            weight *= growth
            splitting = CompactSplitting.of(programs, step=weight)
    return Points(x, w, np.full(batch, int(il2o.Status.MAX_STEPS)), steps), splitting


def certificates(
    programs: ConePrograms, splitting: ConicSplitting, moved: np.ndarray, status: np.ndarray
) -> np.ndarray:
    """INFEASIBLE or DIVERGED for samples whose last movement is a certificate of it.

    Source: G. Banjac, P. Goulart, B. Stellato and S. Boyd, Infeasibility detection in the alternating direction method of
    multipliers for convex optimization (2019).
    """
    n = programs.canonical.n
    dx, dv = moved[:, :n], moved[:, n:]
    ray = project(programs, dv)
    dy = splitting.rho.numpy() * (ray - dv)
    small = 1e-5

    def norm(part: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(part).sum(1))

    of_y, of_x = norm(dy), norm(dx)
    infeasible = (
        (of_y > 0)
        & (norm(programs.multiply_transposed(dy)) <= small * of_y)
        & ((programs.b * dy).sum(1) < -small * of_y * (1 + norm(programs.b)))
    )
    Ax = programs.multiply(dx)
    unbounded = (
        (of_x > 0)
        & (norm(programs.curvature(dx)) <= small * of_x)
        & ((programs.q * dx).sum(1) < -small * of_x * (1 + norm(programs.q)))
        & (norm(Ax + project(programs, -Ax)) <= small * of_x)
    )
    status = np.where(infeasible, int(il2o.Status.INFEASIBLE), status)
    return np.where(unbounded & ~infeasible, int(il2o.Status.DIVERGED), status)


def balance(programs: ConePrograms, x: np.ndarray, w: np.ndarray, open_: Bool[np.ndarray, " B"]) -> float:
    """By how much the weights should grow for some samples, OSQP's rule: the root of the ratio of relative residuals."""
    s = project(programs, w)
    dual, primal = programs.residuals(x, w, s)
    y = s - w

    def relative(part: np.ndarray, *terms: np.ndarray) -> np.ndarray:
        size = np.max([np.abs(term).max(1, initial=0.0) for term in terms], 0)
        return np.abs(part).max(1, initial=0.0) / np.maximum(size, 1e-12)

    first = relative(primal, programs.multiply(x), s, programs.b)
    second = relative(dual, programs.curvature(x), programs.multiply_transposed(y), programs.q)
    ratio = np.sqrt(np.maximum(first, 1e-14) / np.maximum(second, 1e-14))[open_]
    return float(np.clip(np.exp(np.log(ratio).mean()), 0.05, 20.0))
