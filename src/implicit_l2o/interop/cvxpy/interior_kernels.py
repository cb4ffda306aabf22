"""Compiled interior-point method for cone programs of one pattern, eight at a time.

Predictor and corrector for symmetric cones; exponential and power cones are scaled by the Hessian of the dual barrier.
Source: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J. Optim. 2 (1992); L. Vandenberghe,
The CVXOPT linear and quadratic cone program solvers (2010); A. Serrano, Algorithms for unsymmetric cone optimization (2015).
"""

from typing import NamedTuple

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy import second_order_kernels as second
from implicit_l2o.interop.cvxpy import semidefinite_kernels as semidefinite
from implicit_l2o.interop.cvxpy import triple_kernels as triples
from implicit_l2o.interop.cvxpy.equation_kernels import (
    apply_inverse,
    factor_one,
    multiply_corner,
    multiply_data,
    refined,
    room,
)
from implicit_l2o.interop.cvxpy.room_kernels import room_for

_LONGEST = 0.99  # of the way to the boundary
_SHORT = 0.1  # step after which a sample is centred
_STALLED = 1e-4  # step at which rounding has the last word
_SHORTER = 0.97  # ... of second-order and semidefinite cones, where longer steps end far from the central path


class Scaling(NamedTuple):
    """Of one chunk's symmetric cones: factors, scaling points and the points that are scaled."""

    eta: np.ndarray
    w: np.ndarray
    scaled: np.ndarray
    matrices: semidefinite.Matrices


@compiled
def start_inside(t, point):
    """A shift of a point into the nonnegative cone, where it is not well inside."""
    for s in range(8):
        low = np.inf
        for i in range(t.zero, t.first):
            low = min(low, point[i, s])
        if low < 1e-8:
            for i in range(t.zero, t.first):
                point[i, s] += 1.0 - low


@compiled
def centre(t, point):
    """The point that is its own dual."""
    point[:] = 0.0
    for s in range(8):
        for i in range(t.zero, t.first):
            point[i, s] = 1.0
        for k in range(len(t.seconds)):
            point[t.seconds[k, 0], s] = 1.0
        for k in range(len(t.matrices)):
            for j in range(t.matrices[k, 1]):
                point[t.matrices[k, 0] + j * (j + 3) // 2, s] = 1.0
        for k in range(len(t.triples)):
            central = triples.central(t.alphas[k])
            for a in range(3):
                point[t.triples[k, 0] + a, s] = central[a]


@compiled
def begin(t, values, q, b, x, s_, z, scaling, work, shift):
    """A starting point: least squares and a shift into the cone, or the centres where there are others than linear ones."""
    centre(t, s_)
    centre(t, z)
    x[:] = 0.0
    if t.curved < len(t.rows):
        return
    scale(t, values, s_, z, np.ones(8), scaling)
    right, both = room_for(t.size), room_for(t.size)
    right[: t.n] = -q
    right[t.n : t.n + t.m] = b
    factor_one(t, values, shift, work)
    refined(t, values, right, scaling.matrices, both, work)
    x[:] = both[: t.n]
    for i in range(t.m):
        for s in range(8):
            z[i, s] = both[t.n + i, s]
            s_[i, s] = 0.0 if i < t.zero else -z[i, s]
    start_inside(t, s_)
    start_inside(t, z)


@compiled
def scale(t, values, s_, z, mu, scaling):
    """The entries of E with their sign."""
    for i in range(t.first):
        for s in range(8):
            values[t.linear + i, s] = 0.0 if i < t.zero else -s_[i, s] / z[i, s]
    second.scale(t, values, s_, z, scaling.eta, scaling.w, scaling.scaled)
    semidefinite.scale(t, values, s_, z, scaling.matrices)
    triples.scale(t, values, z, mu)


@compiled
def longest(t, s_, z, ds, dz, most, scaling, out):
    """How far each sample may go, at most `most`."""
    for s in range(8):
        out[s] = most
    for i in range(t.zero, t.first):
        for s in range(8):
            if ds[i, s] < 0.0:
                out[s] = min(out[s], -s_[i, s] / ds[i, s])
            if dz[i, s] < 0.0:
                out[s] = min(out[s], -z[i, s] / dz[i, s])
    for k in range(len(t.seconds)):
        row, size = t.seconds[k, 0], t.seconds[k, 1]
        for s in range(8):
            out[s] = second.longest(s_, ds, row, size, s, out[s])
            out[s] = second.longest(z, dz, row, size, s, out[s])
    semidefinite.directions(t, ds, dz, scaling.matrices)
    semidefinite.longest(t, scaling.matrices, out)
    triples.longest(t, s_, z, ds, dz, out)


@compiled
def complement(t, s_, z, ds, dz, target, scaling, corrected, fixed):
    """What `-ds - E dz` should be: `s`, and the corrections where the directions of the predictor are known."""
    fixed[:] = s_
    if not corrected:
        return
    for i in range(t.zero, t.first):
        for s in range(8):
            fixed[i, s] += (ds[i, s] * dz[i, s] - target[s]) / z[i, s]
    second.correct(t, scaling.eta, scaling.w, scaling.scaled, ds, dz, target, fixed)
    semidefinite.correct(t, scaling.matrices, target, fixed)
    triples.correct(t, z, target, fixed)


@compiled
def residuals(t, values, q, b, x, s_, z, sizes, both, rest, mu, error, share):
    """Those of the equations, `mu`, and the largest of them relative to `sizes`, equations counted by their share."""
    n = t.n
    both[:n] = x
    both[n : n + t.m] = z
    rest[:] = 0.0
    multiply_data(t, values, both, rest)
    mu[:] = 0.0
    error[:] = 0.0
    for i in range(n):
        for s in range(8):
            rest[i, s] += q[i, s]
            error[s] = max(error[s], share * abs(rest[i, s]) / sizes[0, s])
    for i in range(t.m):
        for s in range(8):
            rest[n + i, s] += s_[i, s] - b[i, s]
            error[s] = max(error[s], share * abs(rest[n + i, s]) / sizes[1, s])
            mu[s] += s_[i, s] * z[i, s]
    for s in range(8):
        mu[s] /= t.degree
        error[s] = max(error[s], mu[s])


@compiled
def iterate(t, values, q, b, tolerance, share, steps, shift, x, s_, z, taken, work):
    """The method on one chunk: `x`, `s_`, `z` and the steps that each sample took, up to `steps` where it did not end."""
    n, m, size = t.n, t.m, t.size
    scaling = Scaling(room_for(len(t.seconds)), room_for(m), room_for(m), semidefinite.matrices_of(t))
    begin(t, values, q, b, x, s_, z, scaling, work, shift)
    both, right, d, rest, corner = room_for(size), room_for(size), room_for(size), room_for(size), room_for(size)
    ds, dz, fixed, sizes = room_for(m), room_for(m), room_for(m), np.ones((2, 8))
    mu, alpha, sigma, error = np.empty(8), np.empty(8), np.empty(8), np.empty(8)
    short = np.zeros(8, np.bool_)
    active, fraction = np.ones(8, np.bool_), _SHORTER if len(t.seconds) + len(t.matrices) else _LONGEST
    for s in range(8):
        for i in range(n):
            sizes[0, s] = max(sizes[0, s], abs(q[i, s]))
        for i in range(m):
            sizes[1, s] = max(sizes[1, s], abs(b[i, s]))
    taken[:] = 0
    for _ in range(steps + 1):
        residuals(t, values, q, b, x, s_, z, sizes, both, rest, mu, error, share)
        going = False
        for s in range(8):
            active[s] = active[s] and error[s] > tolerance and error[s] < np.inf
            going = going or active[s]
            taken[s] += 1 if active[s] else 0
        if not going:
            return
        scale(t, values, s_, z, mu, scaling)
        factor_one(t, values, shift, work)
        sigma[:] = 0.0
        for corrected in (False, True):
            complement(t, s_, z, ds, dz, sigma * mu, scaling, corrected, fixed)
            for i in range(n):
                for s in range(8):
                    right[i, s] = -(1.0 - sigma[s]) * rest[i, s]
            for i in range(m):
                for s in range(8):
                    right[n + i, s] = fixed[i, s] - (1.0 - sigma[s]) * rest[n + i, s]
            if corrected or size > n + m:
                refined(t, values, right, scaling.matrices, d, work)
            else:  # the predictor's last digits do not matter, where no large second-order cone takes away more than these
                apply_inverse(t, right, d, work, False)
            # ds = -fixed - E dz: the rows of the cones in the product with E alone.
            dz[:] = d[n : n + m]
            corner[:] = 0.0
            multiply_corner(t, values, d, scaling.matrices, corner)
            for i in range(m):
                for s in range(8):
                    ds[i, s] = 0.0 if i < t.zero else corner[n + i, s] - fixed[i, s]
            longest(t, s_, z, ds, dz, 1.0 / fraction if corrected else 1.0, scaling, alpha)
            for s in range(8):
                # After a short step one that only goes back to the central path.
                sigma[s] = 1.0 if short[s] else (1.0 - alpha[s]) ** 3
        for s in range(8):
            if active[s] and short[s] and not alpha[s] > _STALLED:
                active[s], taken[s] = False, steps
            short[s] = not alpha[s] > _SHORT
            alpha[s] = min(1.0, fraction * alpha[s])
            if active[s]:
                for i in range(n):
                    x[i, s] += alpha[s] * d[i, s]
                for i in range(m):
                    s_[i, s] += alpha[s] * ds[i, s]
                    z[i, s] += alpha[s] * dz[i, s]


@compiled
def iterate_all(t, values, q, b, tolerance, share, steps, shift, x, s_, z, taken):
    """The method on every chunk."""
    work = room(t, room_for(len(t.shape.below)), room_for(t.size))
    for c in range(len(q)):
        iterate(t, values[c], q[c], b[c], tolerance, share, steps, shift, x[c], s_[c], z[c], taken[c], work)
