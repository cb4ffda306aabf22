"""Solves with the matrix `H = P + S + A^T R A` of a splitting, dense or sparse."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_l2o._numba import has_numba
from implicit_l2o.interop.cvxpy.kkt import sparse_factor
from implicit_l2o.interop.cvxpy.program import ConePrograms


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


def factor_of(programs: ConePrograms, sigma: Float[Tensor, "S n"], rho: Float[Tensor, "S m"]) -> AbstractFactor:
    """The one that suits the sizes and the number of entries."""
    if programs.fits and not programs.sparse:
        return DenseFactor.of(*programs.dense, sigma, rho)
    if programs.shared and has_numba():
        # It compiles.
        from implicit_l2o.interop.cvxpy.shared_factor import SharedFactor

        return SharedFactor.of(programs, sigma, rho)
    return SparseFactor.of(programs, sigma, rho)
