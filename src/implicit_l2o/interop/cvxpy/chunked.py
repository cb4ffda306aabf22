"""Solves, polishes and differentiates batches of cone programs eight at a time, on one pattern of sparse factors.

Of the equations in `kkt`, with `u = (D - I) dw` as an unknown and `E = D (I - D)^-1`, those here are `P dx + A^T u = .`,
`A dx - E u = .`: symmetric and quasi-definite. E is infinite where a constraint is idle, so `I - D` is a little enlarged and
refinement in the equations of `kkt` takes that out again.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy import equation_kernels as equations
from implicit_l2o.interop.cvxpy.bends import AbstractBend, bends_at, derivative_product
from implicit_l2o.interop.cvxpy.chunks import WIDTH, Chunks, aligned, from_chunks, to_chunks
from implicit_l2o.interop.cvxpy.interior_kernels import iterate_all
from implicit_l2o.interop.cvxpy.interior_point import Points
from implicit_l2o.interop.cvxpy.pattern import Pattern
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.projections import project, put, take

_NEAR = 1e-6  # relative to w, up to where factors are kept
_LARGE = 1e20  # in E, for an idle inequality
_COARSE = 1e-6  # tolerance of the interior-point method where its steps cost as much as those of the polish ...
_ROUGH = 1e-8  # ... where these converge later ...
_CLOSE = 1e-10  # ... where its steps cost less ...
_SHARP = 1e-14  # ... and of the gap alone of linear programs, whose active sets show last
_STEPS = 60
_REFINEMENTS = 5
_ENOUGH = 1e-12


def interior_points(pattern: Pattern, programs: ConePrograms, values: Chunks) -> Points:
    """Rough solutions by the interior-point method; CONVERGED, or MAX_STEPS for those that may have none.

    `values` are the entries of the equations; those of E are overwritten.
    """
    q, b = to_chunks(programs.q), to_chunks(programs.b)
    x, s, z = aligned(*q.shape), aligned(*b.shape), aligned(*b.shape)
    taken = np.zeros((len(q), q.shape[2]), int)
    tolerance, share = _tolerances(programs)
    iterate_all(pattern.structure, values, q, b, tolerance, share, _STEPS, pattern.shift, x, s, z, taken)
    count = len(programs)
    steps = taken.reshape(-1)[:count]
    found, w = from_chunks(x, count), from_chunks(s - z, count)
    ended = (steps < _STEPS) & np.isfinite(found).all(1) & np.isfinite(w).all(1)
    status = np.where(ended, int(il2o.Status.CONVERGED), int(il2o.Status.MAX_STEPS))
    return Points(found, w, status, steps)


def _tolerances(programs: ConePrograms) -> tuple[float, float]:
    """That of the gap and of the equations' residuals, and the share by which these count."""
    cones, quadratic = programs.cones, programs.P is not None
    triples = cones.exponential + len(cones.power)
    if cones.semidefinite:
        return _COARSE, 1.0
    if triples and quadratic:
        return _ROUGH, 1.0
    if quadratic or cones.second_order or triples:
        return _CLOSE, 1.0
    return _SHARP, _SHARP / _CLOSE  # the polish solves the equations of a known active set, so it has to be known


@dataclass(frozen=True, eq=False)
class Chunked:
    """The factored equations of a batch.

    Attributes:
        pattern: of all samples.
        programs: the batch.
        free: `(B, first)` which inequalities are idle.
        bends: derivatives of the projections onto other cones.
        factored: `w` where they were factored, which may be a little away: refinement makes up for it.
        values: entries of the equations.
        low, diagonal: their factors.
    """

    pattern: Pattern
    programs: ConePrograms
    free: Bool[np.ndarray, "B first"]
    bends: tuple[AbstractBend, ...]
    factored: Float[np.ndarray, "B m"]
    values: np.ndarray
    low: np.ndarray
    diagonal: np.ndarray

    @classmethod
    def at(
        cls,
        pattern: Pattern,
        programs: ConePrograms,
        w: np.ndarray,
        known: "Chunked | None",
        values: Chunks | None = None,
    ) -> "Chunked":
        """Factor the equations at `w`; the factors of `known` are kept where its equations are about the same.

        `values` are the entries of the equations where they are at hand; those of E are overwritten.
        """
        t = pattern.structure
        free = w[:, : t.first] > 0
        free[:, : t.zero] = False
        bends = bends_at(programs.cones, w)
        if known is not None and np.array_equal(free, known.free):
            if not bends:
                return known
            if np.abs(w - known.factored).max(initial=0.0) <= _NEAR * (1.0 + np.abs(w).max(initial=0.0)):
                return replace(known, bends=bends)
        if known is None:
            values = pattern.values(programs) if values is None else values
            low = aligned(len(values), pattern.fill, WIDTH)
            diagonal = aligned(len(values), t.size, WIDTH)
        else:
            values, low, diagonal = known.values, known.low, known.diagonal
        which = np.arange(len(values))
        values[:, t.linear : t.curved] = to_chunks(np.where(free, -_LARGE, 0.0))
        for bend in bends:
            own = bend.chunks()
            for cone, start in enumerate(pattern.first_entries[bend.places[:, 0]]):
                values[:, start : start + own.shape[2]] = own[:, cone]
        if known is not None and not bends:
            changed = to_chunks((free != known.free).any(1, keepdims=True))
            which = np.flatnonzero(changed.any((1, 2)))
        equations.factor_all(t, values, pattern.shift, low, diagonal, which)
        return cls(pattern, programs, free, bends, w, values, low, diagonal)

    def solve(
        self, top: Float[np.ndarray, "B n"], bottom: Float[np.ndarray, "B m"], *, transposed: bool
    ) -> tuple[Float[np.ndarray, "B n"], Float[np.ndarray, "B m"], Float[np.ndarray, " B"]]:
        """The solutions of the equations of `kkt`, and their residuals relative to the right-hand sides."""
        right = np.concatenate([top, bottom], 1)
        size = np.maximum(_norm(right), np.finfo(float).tiny)
        x = np.zeros_like(right)
        best, least = x, np.full(len(x), np.inf)
        rest = right
        for _ in range(_REFINEMENTS):
            x = x + (self._transposed_step(rest) if transposed else self._step(rest))
            rest = right - (self._transposed_product(x) if transposed else self._product(x))
            residual = _norm(rest) / size
            better = residual < least
            best, least = np.where(better[:, None], x, best), np.where(better, residual, least)
            if not (residual > _ENOUGH).any() or not better.any():
                break
        n = top.shape[1]
        return best[:, :n], best[:, n:], least

    def _step(self, right: np.ndarray) -> np.ndarray:
        n = self.pattern.structure.n
        found = self._factors(right)
        x, u = found[:, :n], found[:, n:]
        return np.concatenate([x, right[:, n:] - products(self, found)[:, n:] - u], 1)

    def _product(self, x: np.ndarray) -> np.ndarray:
        n = self.pattern.structure.n
        bent = self.derivative(x[:, n:])
        out = products(self, np.concatenate([x[:, :n], bent - x[:, n:]], 1))
        out[:, n:] += bent
        return out

    def _transposed_step(self, right: np.ndarray) -> np.ndarray:
        n, t = self.pattern.structure.n, self.pattern.structure
        bottom = right[:, n:].copy()
        # (D - I - delta) v = bottom.
        bottom[:, : t.first] = np.where(self.free, 0.0, -bottom[:, : t.first])
        for bend in self.bends:
            put(bottom, bend.places, bend.inverse(take(bottom, bend.places)))
        out = self._factors(np.concatenate([right[:, :n], bottom], 1))
        # In an idle row D = 1 and the unknown is the right-hand side.
        out[:, n : n + t.first] = np.where(self.free, right[:, n : n + t.first], out[:, n : n + t.first])
        return out

    def _transposed_product(self, x: np.ndarray) -> np.ndarray:
        n = self.pattern.structure.n
        out = products(self, x)
        out[:, n:] = self.derivative(out[:, n:] + x[:, n:]) - out[:, n:]
        return out

    def derivative(self, v: np.ndarray) -> np.ndarray:
        """`D v`."""
        return derivative_product(self.free, self.bends, v)

    def _factors(self, right: np.ndarray) -> np.ndarray:
        t = self.pattern.structure
        rows = to_chunks(np.concatenate([right, np.zeros((len(right), t.size - t.n - t.m))], 1))
        out = aligned(*rows.shape)
        equations.solve_all(t, self.low, self.diagonal, rows, out, np.arange(len(rows)))
        return from_chunks(out, len(right))[:, : t.n + t.m]


def products(kkt: Chunked, x: Float[np.ndarray, "B k"]) -> Float[np.ndarray, "B k"]:
    """`(P x + A^T u, A x)` of `(x, u)`."""
    return _products(kkt.pattern, kkt.values, x)


def _products(pattern: Pattern, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    rows = to_chunks(x)
    out = aligned(*rows.shape)
    equations.products(pattern.structure, values, rows, out, np.arange(len(rows)))
    return from_chunks(out, len(x))


def _norm(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(x).sum(1))


def polish(
    pattern: Pattern,
    programs: ConePrograms,
    values: Chunks,
    x: np.ndarray,
    w: np.ndarray,
    *,
    steps: int,
    goal: Float[np.ndarray, " B"],
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " B"], Chunked | None]:
    """Newton steps on the optimality conditions, as in `polish.polish`, of all samples until none gets better.

    `values` are as in `interior_points`.
    """
    n = pattern.structure.n

    def residuals(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        s = project(programs.cones, w)
        out = _products(pattern, values, np.concatenate([x, s - w], 1))
        out[:, :n] += programs.q
        out[:, n:] += s - programs.b
        return out

    rest = residuals(x, w)
    best_x, best_w, best = x, w, _norm(rest)
    kkt = None
    for _ in range(steps):
        if not (best > goal).any():
            break
        kkt = Chunked.at(pattern, programs, w, kkt, values)
        dx, dw, _ = kkt.solve(-rest[:, :n], -rest[:, n:], transposed=False)
        x, w = x + dx, w + dw
        rest = residuals(x, w)
        new = _norm(rest)
        better = new < best
        best_x, best_w = np.where(better[:, None], x, best_x), np.where(better[:, None], w, best_w)
        best = np.where(better, new, best)
        # Those that have arrived stay there.
        done = ~(new > goal)
        x, w = np.where(done[:, None], best_x, x), np.where(done[:, None], best_w, w)
        if not (better & ~done).any() and not (best > 1e2 * goal).any():
            break
    return best_x, best_w, best, kkt
