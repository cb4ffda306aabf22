"""Compiled interior-point method for cone programs of one pattern, eight at a time.

Predictor and corrector for zero and nonnegative cones; exponential cones are scaled by the Hessian of the dual barrier.
Source: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J. Optim. 2 (1992); L. Vandenberghe,
The CVXOPT linear and quadratic cone program solvers (2010); A. Serrano, Algorithms for unsymmetric cone optimization (2015).
"""

from typing import NamedTuple

import numpy as np

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy.exponential_kernels import barrier, central, in_dual, in_primal
from implicit_l2o.interop.cvxpy.ldl_kernels import factor, multiply, solve

_LONGEST = 0.99  # of the way to the boundary
_SHORTER = 0.8  # where an exponential cone would be left
_REFINED = 1e-11  # residual relative to the right-hand side
_REFINEMENTS = 2
_LEAST = 1e-13  # pivot


class Structure(NamedTuple):
    """What the samples have in common: sizes, the pattern of the equations and where the entries of E start.

    Rows up to `zero` are equations, up to `first` inequalities, then `triples` exponential cones.
    """

    n: int
    m: int
    zero: int
    first: int
    triples: int
    linear: int
    curved: int
    rows: np.ndarray
    columns: np.ndarray
    places: np.ndarray
    order: np.ndarray
    signs: np.ndarray
    shape: tuple[np.ndarray, ...]


class Work(NamedTuple):
    """Room for one chunk."""

    halved: np.ndarray
    low: np.ndarray
    diagonal: np.ndarray
    columns: np.ndarray
    inner: np.ndarray
    product: np.ndarray


@compiled
def room(t, low, diagonal):
    """Room for one chunk."""
    size = t.n + t.m
    return Work(np.empty((t.linear, 8)), low, diagonal, np.zeros((size, 8)), np.empty((size, 8)), np.empty((size, 8)))


@compiled
def halve(t, values, work):
    """The entries of P and A with half of the diagonal, as `multiply` takes them."""
    for e in range(t.linear):
        share = 0.5 if t.rows[e] == t.columns[e] else 1.0
        for s in range(8):
            work.halved[e, s] = share * values[e, s]


@compiled
def multiply_all(t, values, x, work):
    """`work.product`: that with the whole matrix."""
    work.product[:] = 0.0
    multiply(t.rows, t.columns, t.linear, work.halved, x, work.product)
    for i in range(t.first):
        for s in range(8):
            work.product[t.n + i, s] += values[t.linear + i, s] * x[t.n + i, s]
    for k in range(t.triples):
        r, e = t.n + t.first + 3 * k, t.curved + 6 * k
        for s in range(8):
            a, b, c = x[r, s], x[r + 1, s], x[r + 2, s]
            work.product[r, s] += values[e, s] * a + values[e + 1, s] * b + values[e + 3, s] * c
            work.product[r + 1, s] += values[e + 1, s] * a + values[e + 2, s] * b + values[e + 4, s] * c
            work.product[r + 2, s] += values[e + 3, s] * a + values[e + 4, s] * b + values[e + 5, s] * c


@compiled
def apply_inverse(t, right, out, work, add):
    """`out` or what is added to it: the solution of the regularised equations."""
    size = t.n + t.m
    for i in range(size):
        o = t.order[i]
        for s in range(8):
            work.inner[i, s] = right[o, s]
    solve(t.shape[0], t.shape[1], work.low, work.diagonal, work.inner)
    for i in range(size):
        o = t.order[i]
        for s in range(8):
            out[o, s] = work.inner[i, s] + (out[o, s] if add else 0.0)


@compiled
def refined(t, values, right, out, work):
    """The solution of the equations, of which the factors are those of regularised ones."""
    apply_inverse(t, right, out, work, False)
    for _ in range(_REFINEMENTS):
        multiply_all(t, values, out, work)
        enough = True
        for s in range(8):
            large, rest = 0.0, 0.0
            for i in range(t.n + t.m):
                gap = right[i, s] - work.product[i, s]
                work.product[i, s] = gap
                large, rest = max(large, abs(right[i, s])), max(rest, abs(gap))
            enough = enough and not rest > _REFINED * large
        if enough:
            return
        apply_inverse(t, work.product, out, work, True)


@compiled
def begin(t, values, q, b, x, s_, z, work, shift):
    """A starting point: least squares and a shift into the cones, or the centres where there are exponential cones."""
    if t.triples:
        x[:] = 0.0
        for i in range(t.first):
            for s in range(8):
                s_[i, s] = z[i, s] = 0.0 if i < t.zero else 1.0
        for k in range(t.triples):
            r = t.first + 3 * k
            for a in range(3):
                for s in range(8):
                    s_[r + a, s] = z[r + a, s] = central[a]
        return
    right, both = np.empty((t.n + t.m, 8)), np.empty((t.n + t.m, 8))
    for i in range(t.first):
        for s in range(8):
            values[t.linear + i, s] = 0.0 if i < t.zero else -1.0
    right[: t.n] = -q
    right[t.n :] = b
    factor(t.shape, t.places, values, shift, t.signs, _LEAST, work.low, work.diagonal, work.columns)
    refined(t, values, right, both, work)
    x[:] = both[: t.n]
    for s in range(8):
        low, high = np.inf, np.inf
        for i in range(t.m):
            z[i, s] = both[t.n + i, s]
            s_[i, s] = 0.0 if i < t.zero else -z[i, s]
            if i >= t.zero:
                low, high = min(low, s_[i, s]), min(high, z[i, s])
        for i in range(t.zero, t.m):
            if low < 1e-8:
                s_[i, s] += 1.0 - low
            if high < 1e-8:
                z[i, s] += 1.0 - high


@compiled
def scale(t, values, s_, z, mu):
    """The entries of E with their sign."""
    for i in range(t.first):
        for s in range(8):
            values[t.linear + i, s] = 0.0 if i < t.zero else -s_[i, s] / z[i, s]
    for k in range(t.triples):
        r, e = t.first + 3 * k, t.curved + 6 * k
        for s in range(8):
            _, H = barrier(z[r, s], z[r + 1, s], z[r + 2, s])
            for a in range(6):
                values[e + a, s] = -mu[s] * H[a]


@compiled
def longest(t, s_, z, ds, dz, most, out):
    """How far each sample may go, at most `most`."""
    for s in range(8):
        out[s] = most
    for i in range(t.zero, t.first):
        for s in range(8):
            if ds[i, s] < 0.0:
                out[s] = min(out[s], -s_[i, s] / ds[i, s])
            if dz[i, s] < 0.0:
                out[s] = min(out[s], -z[i, s] / dz[i, s])
    for k in range(t.triples):
        r = t.first + 3 * k
        for s in range(8):
            for _ in range(60):
                a = out[s]
                if in_primal(
                    s_[r, s] + a * ds[r, s], s_[r + 1, s] + a * ds[r + 1, s], s_[r + 2, s] + a * ds[r + 2, s]
                ) and in_dual(z[r, s] + a * dz[r, s], z[r + 1, s] + a * dz[r + 1, s], z[r + 2, s] + a * dz[r + 2, s]):
                    break
                out[s] *= _SHORTER


@compiled
def iterate(t, values, q, b, tolerance, steps, shift, x, s_, z, taken, work):
    """The method on one chunk: `x`, `s_`, `z` and the steps that each sample took, up to `steps` where it did not end."""
    n, m, size = t.n, t.m, t.n + t.m
    degree = max(1, t.first - t.zero + 3 * t.triples)
    halve(t, values, work)
    begin(t, values, q, b, x, s_, z, work, shift)
    both, right, d = np.empty((size, 8)), np.empty((size, 8)), np.empty((size, 8))
    rest, ds, dz, fixed = np.empty((size, 8)), np.empty((m, 8)), np.empty((m, 8)), np.empty((m, 8))
    mu, alpha, sigma, error = np.empty(8), np.empty(8), np.empty(8), np.empty(8)
    of_q, of_b, active = np.ones(8), np.ones(8), np.ones(8, np.bool_)
    for s in range(8):
        for i in range(n):
            of_q[s] = max(of_q[s], abs(q[i, s]))
        for i in range(m):
            of_b[s] = max(of_b[s], abs(b[i, s]))
    taken[:] = 0
    for _ in range(steps + 1):
        both[:n] = x
        both[n:] = z
        rest[:] = 0.0
        multiply(t.rows, t.columns, t.linear, work.halved, both, rest)
        mu[:] = 0.0
        error[:] = 0.0
        for i in range(n):
            for s in range(8):
                rest[i, s] += q[i, s]
                error[s] = max(error[s], abs(rest[i, s]) / of_q[s])
        for i in range(m):
            for s in range(8):
                rest[n + i, s] += s_[i, s] - b[i, s]
                error[s] = max(error[s], abs(rest[n + i, s]) / of_b[s])
                mu[s] += s_[i, s] * z[i, s]
        going = False
        for s in range(8):
            mu[s] /= degree
            error[s] = max(error[s], mu[s])
            active[s] = active[s] and error[s] > tolerance and error[s] < np.inf
            going = going or active[s]
            taken[s] += 1 if active[s] else 0
        if not going:
            return
        scale(t, values, s_, z, mu)
        factor(t.shape, t.places, values, shift, t.signs, _LEAST, work.low, work.diagonal, work.columns)
        sigma[:] = 0.0
        for corrected in (False, True):
            for i in range(n):
                for s in range(8):
                    right[i, s] = -(1.0 - sigma[s]) * rest[i, s]
            for i in range(m):
                for s in range(8):
                    fixed[i, s] = s_[i, s]
                    if corrected and t.zero <= i < t.first:
                        fixed[i, s] += (ds[i, s] * dz[i, s] - sigma[s] * mu[s]) / z[i, s]
            for k in range(t.triples if corrected else 0):
                r = t.first + 3 * k
                for s in range(8):
                    g, _ = barrier(z[r, s], z[r + 1, s], z[r + 2, s])
                    for a in range(3):
                        fixed[r + a, s] += sigma[s] * mu[s] * g[a]
            for i in range(m):
                for s in range(8):
                    right[n + i, s] = fixed[i, s] - (1.0 - sigma[s]) * rest[n + i, s]
            refined(t, values, right, d, work)
            # ds = -fixed - E dz: the rows of the cones in the product with E alone.
            dz[:] = d[n:]
            for i in range(t.first):
                for s in range(8):
                    ds[i, s] = 0.0 if i < t.zero else values[t.linear + i, s] * dz[i, s] - fixed[i, s]
            for k in range(t.triples):
                r, e = t.first + 3 * k, t.curved + 6 * k
                for s in range(8):
                    u, v, w = dz[r, s], dz[r + 1, s], dz[r + 2, s]
                    ds[r, s] = values[e, s] * u + values[e + 1, s] * v + values[e + 3, s] * w - fixed[r, s]
                    ds[r + 1, s] = values[e + 1, s] * u + values[e + 2, s] * v + values[e + 4, s] * w - fixed[r + 1, s]
                    ds[r + 2, s] = values[e + 3, s] * u + values[e + 4, s] * v + values[e + 5, s] * w - fixed[r + 2, s]
            longest(t, s_, z, ds, dz, 1.0 / _LONGEST if corrected else 1.0, alpha)
            for s in range(8):
                sigma[s] = (1.0 - alpha[s]) ** 3
        for s in range(8):
            alpha[s] = min(1.0, _LONGEST * alpha[s]) if active[s] else 0.0
            if active[s]:
                for i in range(n):
                    x[i, s] += alpha[s] * d[i, s]
                for i in range(m):
                    s_[i, s] += alpha[s] * ds[i, s]
                    z[i, s] += alpha[s] * dz[i, s]


@compiled
def iterate_all(t, values, q, b, tolerance, steps, shift, x, s_, z, taken):
    """The method on every chunk."""
    work = room(t, np.empty((len(t.shape[1]), 8)), np.empty((t.n + t.m, 8)))
    for c in range(len(q)):
        iterate(t, values[c], q[c], b[c], tolerance, steps, shift, x[c], s_[c], z[c], taken[c], work)


@compiled
def factor_all(t, values, shift, low, diagonal, which):
    """Factor the equations of some chunks."""
    columns = np.zeros((t.n + t.m, 8))
    for c in which:
        factor(t.shape, t.places, values[c], shift, t.signs, _LEAST, low[c], diagonal[c], columns)


@compiled
def solve_all(t, low, diagonal, right, out, which):
    """Solve the regularised equations of some chunks."""
    for c in which:
        apply_inverse(t, right[c], out[c], room(t, low[c], diagonal[c]), False)


@compiled
def products(t, values, x, out, which):
    """`(P x + A^T z, A x)` of `(x, z)` for some chunks."""
    work = room(t, np.empty((0, 8)), np.empty((0, 8)))
    for c in which:
        halve(t, values[c], work)
        out[c] = 0.0
        multiply(t.rows, t.columns, t.linear, work.halved, x[c], out[c])
