"""Exponential and power cones in the interior-point method: the Hessian of the dual barrier as scaling, compiled.

Source: A. Serrano, Algorithms for unsymmetric cone optimization and an implementation for problems with the exponential
cone, PhD thesis, Stanford (2015).
"""

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy import exponential_kernels as exponential
from implicit_l2o.interop.cvxpy import power_kernels as power

_SHORTER = 0.8  # where a cone would be left


@compiled
def central(alpha):
    """The point that is its own dual; `alpha` is zero for exponential cones, here and below."""
    return exponential.central if alpha == 0.0 else power.central(alpha)


@compiled
def _barrier(z, row, s, alpha):
    if alpha == 0.0:
        return exponential.barrier(z[row, s], z[row + 1, s], z[row + 2, s])
    return power.barrier(z[row, s], z[row + 1, s], z[row + 2, s], alpha)


@compiled
def _in_primal(x, y, z, alpha):
    return exponential.in_primal(x, y, z) if alpha == 0.0 else power.in_primal(x, y, z, alpha)


@compiled
def _in_dual(u, v, w, alpha):
    return exponential.in_dual(u, v, w) if alpha == 0.0 else power.in_dual(u, v, w, alpha)


@compiled
def scale(t, values, z, mu):
    """The entries of E with their sign."""
    for k in range(len(t.triples)):
        r, e = t.triples[k]
        for s in range(8):
            _, H = _barrier(z, r, s, t.alphas[k])
            for a in range(6):
                values[e + a, s] = -mu[s] * H[a]


@compiled
def correct(t, z, target, fixed):
    """Add the gradient of the barrier, `target` times."""
    for k in range(len(t.triples)):
        r = t.triples[k, 0]
        for s in range(8):
            g, _ = _barrier(z, r, s, t.alphas[k])
            for a in range(3):
                fixed[r + a, s] += target[s] * g[a]


@compiled
def longest(t, s_, z, ds, dz, out):
    """Shorten the steps `out` until they stay in the cones."""
    for k in range(len(t.triples)):
        r, alpha = t.triples[k, 0], t.alphas[k]
        for s in range(8):
            for _ in range(60):
                a = out[s]
                if _in_primal(
                    *(s_[r, s] + a * ds[r, s], s_[r + 1, s] + a * ds[r + 1, s], s_[r + 2, s] + a * ds[r + 2, s], alpha)
                ) and _in_dual(
                    *(z[r, s] + a * dz[r, s], z[r + 1, s] + a * dz[r + 1, s], z[r + 2, s] + a * dz[r + 2, s], alpha)
                ):
                    break
                out[s] *= _SHORTER
