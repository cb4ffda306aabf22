"""Douglas-Rachford splitting of cone programs, the alternating directions of OSQP, SCS and COSMO, as a map `T`.

Source: B. Stellato, G. Banjac, P. Goulart, A. Bemporad and S. Boyd, OSQP: an operator splitting solver for quadratic
programs (2020); M. Garstka, M. Cannon and P. Goulart, COSMO (2021).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.kept import AbstractSplitting
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.splitting_factors import AbstractFactor, factor_of

_SIGMA = 1e-6  # weight of x, relative: as small as the factorisation allows
_EQUATIONS = 1e3  # their weight relative to the inequalities'
_RUIZ = 10


@dataclass(frozen=True, eq=False)
class ConicSplitting(AbstractSplitting):
    """`T(x, v) = (x', v + b - A x' - Pi(v))`, `x' = H^-1 (S x - q + A^T R (b - 2 Pi(v) + v))`.

    `Pi` is the projection onto the cones, `H = P + S + A^T R A`. At a fixed point `x` is a solution, `s = Pi(v)` its slacks
    and `y = R (Pi(v) - v)` its multipliers: Douglas-Rachford in the metric of S and R, which are an equilibration.

    Attributes:
        cones: the product.
        factor: of H.
        q: `(B, n)`.
        b: `(B, m)`.
        sigma: `(1, n)` or `(B, n)`, the diagonal of S.
        rho: `(1, m)` or `(B, m)`, that of R; constant on every cone that is not a product of half-lines.
    """

    cones: il2o.ConeProduct
    factor: AbstractFactor
    q: Float[Tensor, "B n"]
    b: Float[Tensor, "B m"]
    sigma: Float[Tensor, "S n"]
    rho: Float[Tensor, "S m"]

    @classmethod
    def of(cls, programs: ConePrograms, *, step: float = 1.0) -> "ConicSplitting":
        """The splitting of a batch, with weights `step` times those of equilibration."""
        sigma, rho = weights(programs, step)
        factor = factor_of(programs, sigma, rho)
        return cls(programs.cones, factor, torch.as_tensor(programs.q), torch.as_tensor(programs.b), sigma, rho)

    def with_data(self, programs: ConePrograms) -> "ConicSplitting":
        """The same matrices with other costs and right-hand sides."""
        return replace(self, q=torch.as_tensor(programs.q), b=torch.as_tensor(programs.b))

    def __call__(self, z: Float[Tensor, "B latent"]) -> Float[Tensor, "B latent"]:
        """`T(z)`."""
        n = self.q.shape[1]
        x, v = z[:, :n], z[:, n:]
        s = self.cones.project(v)
        ahead = self.factor.solve(
            self.sigma * x - self.q + self.factor.multiply_transposed(self.rho * (self.b - 2 * s + v))
        )
        return torch.cat([ahead, v + self.b - self.factor.multiply(ahead) - s], 1)

    def readout(self, z: Float[Tensor, "B latent"]) -> Float[Tensor, "B n"]:
        """`x`."""
        return z[:, : self.q.shape[1]]

    def lift(self, x: Float[Tensor, "B n"], w: Float[Tensor, "B m"]) -> Float[Tensor, "B latent"]:
        """The fixed point of a solution with `w = s - y`: `v = s - y / R`."""
        s = self.cones.project(w)
        return torch.cat([x, s + (w - s) / self.rho], 1)

    def point(self, z: Float[Tensor, "B latent"]) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B m"]]:
        """`x` and `w = s - y`: the reverse of `lift`."""
        v = z[:, self.q.shape[1] :]
        s = self.cones.project(v)
        return self.readout(z), s + self.rho * (v - s)

    def restrict(self, index: Int[Tensor, " k"]) -> "ConicSplitting":
        """For some samples."""
        own = [part if len(part) == 1 else part[index] for part in (self.sigma, self.rho)]
        return ConicSplitting(self.cones, self.factor.restrict(index), self.q[index], self.b[index], own[0], own[1])


def weights(programs: ConePrograms, step: float) -> tuple[Float[Tensor, "S n"], Float[Tensor, "S m"]]:
    """The diagonals of S and R: Ruiz's equilibration of `[[P, A^T], [A, 0]]`, as weights instead of units."""
    n, m = programs.canonical.n, programs.canonical.m
    entries = programs.canonical.Ab
    inside = entries.columns < n
    rows, columns = entries.rows[inside], entries.columns[inside]
    sigma, rho = [], []
    for sample in range(1 if programs.shared else len(programs)):
        A = np.abs(programs.Ab[sample, inside])
        P = programs.canonical.P
        of_P = np.zeros(0) if P is None or programs.P is None else np.abs(programs.P[sample])
        D, E = np.ones(n), np.ones(m)
        for _ in range(_RUIZ):
            scaled = A * E[rows] * D[columns]
            width, height = np.zeros(n), np.zeros(m)
            np.maximum.at(width, columns, scaled)
            np.maximum.at(height, rows, scaled)
            if P is not None:
                np.maximum.at(width, P.columns, of_P * D[P.rows] * D[P.columns])
            height = _level(programs.cones, height)
            D /= np.sqrt(np.where(width > 0, width, 1.0))
            E /= np.sqrt(np.where(height > 0, height, 1.0))
        cost = 1.0
        if P is not None:
            width = np.zeros(n)
            np.maximum.at(width, P.columns, of_P * D[P.rows] * D[P.columns])
            cost = 1 / max(float(width.mean()), 1e-6)
        R = step * np.square(E) / cost
        R[: programs.cones.zero] *= _EQUATIONS
        sigma.append(_SIGMA / np.square(D) / cost)
        rho.append(R)
    return torch.as_tensor(np.stack(sigma)), torch.as_tensor(np.stack(rho))


def _level(cones: il2o.ConeProduct, height: np.ndarray) -> np.ndarray:
    """One number for each cone that is not a product of half-lines: the mean of its rows'."""
    groups = [*cones.groups("second_order"), *cones.groups("semidefinite")]
    places = [where.numpy() for _, where in groups]
    places += [cones.triples(kind).numpy() for kind in ("exponential", "power")]
    for where in places:
        if len(where):
            height[where] = height[where].mean(1, keepdims=True)
    return height
