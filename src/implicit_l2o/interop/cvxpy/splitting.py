"""Douglas-Rachford splitting of cone programs, the alternating directions of OSQP, SCS and COSMO, as a map `T`.

Source: B. Stellato, G. Banjac, P. Goulart, A. Bemporad and S. Boyd, OSQP: an operator splitting solver for quadratic
programs (2020); M. Garstka, M. Cannon and P. Goulart, COSMO (2021).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.kkt import sparse_factor
from implicit_l2o.interop.cvxpy.program import ConePrograms

_SIGMA = 1e-6  # weight of x, relative: as small as the factorisation allows
_EQUATIONS = 1e3  # their weight relative to the inequalities'
_RUIZ = 10


class AbstractFactor(ABC):
    """Products with A and solves with `H = P + S + A^T R A`."""

    @abstractmethod
    def solve(self, right: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """`H^-1 right`."""

    @abstractmethod
    def multiply(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """`A x`."""

    @abstractmethod
    def multiply_transposed(self, y: Float[Tensor, "B m"]) -> Float[Tensor, "B n"]:
        """`A^T y`."""

    @abstractmethod
    def restrict(self, index: Int[Tensor, " k"]) -> "AbstractFactor":
        """For some samples."""


@dataclass(frozen=True, eq=False)
class DenseFactor(AbstractFactor):
    """One dense matrix for all samples, or one each."""

    A: Float[Tensor, "S m n"]
    cholesky: Float[Tensor, "S n n"]

    @classmethod
    def of(cls, P: Tensor, A: Tensor, sigma: Tensor, rho: Tensor) -> "DenseFactor":
        """Factor."""
        H = P + torch.diag_embed(sigma) + A.mT @ (rho[..., None] * A)
        return cls(A, torch.linalg.cholesky((H + H.mT) / 2))

    def solve(self, right: Tensor) -> Tensor:
        """`H^-1 right`."""
        if len(self.cholesky) == 1:
            return torch.cholesky_solve(right.mT, self.cholesky[0]).mT
        return torch.cholesky_solve(right[:, :, None], self.cholesky)[:, :, 0]

    def multiply(self, x: Tensor) -> Tensor:
        """`A x`."""
        return x @ self.A[0].mT if len(self.A) == 1 else (self.A @ x[:, :, None])[:, :, 0]

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """`A^T y`."""
        return y @ self.A[0] if len(self.A) == 1 else (y[:, None] @ self.A)[:, 0]

    def restrict(self, index: Tensor) -> "DenseFactor":
        """For some samples."""
        return self if len(self.A) == 1 else DenseFactor(self.A[index], self.cholesky[index])


@dataclass(frozen=True, eq=False)
class SparseFactor(AbstractFactor):
    """Sparse matrices and factors, one for all samples or one each; it records no gradient."""

    A: tuple[Any, ...]
    factors: tuple[Any, ...]

    @classmethod
    def of(cls, programs: ConePrograms, sigma: Tensor, rho: Tensor) -> "SparseFactor":
        """Factor `[[P + S, A^T], [A, -1 / R]]`, sparser than H."""
        matrices, factors = [], []
        for sample in range(1 if programs.shared else len(programs)):
            A, P = programs.A(sample), programs.quadratic(sample)
            top = sp.hstack([P + sp.diags_array(sigma[min(sample, len(sigma) - 1)].numpy()), A.T])
            below = sp.hstack([A, sp.diags_array(-1 / rho[min(sample, len(rho) - 1)].numpy())])
            matrices.append(A)
            factors.append(sparse_factor(sp.vstack([top, below]).tocsc()))
        return cls(tuple(matrices), tuple(factors))

    def _each(self, x: Tensor, apply: Any, parts: tuple[Any, ...]) -> Tensor:
        rows = x.detach().numpy()
        if len(parts) == 1:
            return torch.as_tensor(np.ascontiguousarray(apply(parts[0], rows.T).T))
        return torch.as_tensor(np.stack([apply(part, row) for part, row in zip(parts, rows, strict=True)]))

    def solve(self, right: Tensor) -> Tensor:
        """`H^-1 right`."""
        n, m = right.shape[1], self.A[0].shape[0]

        def apply(factor: Any, r: np.ndarray) -> np.ndarray:
            return factor.solve(np.concatenate([r, np.zeros((m, *r.shape[1:]))]))[:n]

        return self._each(right, apply, self.factors)

    def multiply(self, x: Tensor) -> Tensor:
        """`A x`."""
        return self._each(x, lambda A, part: A @ part, self.A)

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """`A^T y`."""
        return self._each(y, lambda A, part: A.T @ part, self.A)

    def restrict(self, index: Tensor) -> "SparseFactor":
        """For some samples."""
        if len(self.A) == 1:
            return self
        kept = index.tolist()
        return SparseFactor(tuple(self.A[i] for i in kept), tuple(self.factors[i] for i in kept))


@dataclass(frozen=True, eq=False)
class ConicSplitting:
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
        if programs.sparse or not programs.fits:
            factor: AbstractFactor = SparseFactor.of(programs, sigma, rho)
        else:
            factor = DenseFactor.of(*programs.dense, sigma, rho)
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
