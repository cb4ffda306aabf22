"""Dense factorisations of the rows of `A` for the projection onto `{x : A x = b}`.

Projection: `x - A^+ (A x - b)`; Golub and Van Loan, Matrix Computations (2013), section 5.5. Rows are scaled to norm one
before their rank is judged, so an equation counts the same in whatever units it is written.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._factor import AbstractAffineFactor


@dataclass(frozen=True, eq=False)
class _Rows:
    """What the two dense factors keep to solve for `b`: the pseudo-inverse and the range of `A`."""

    pinv_transposed: Float[Tensor, "m n"]
    scale: Float[Tensor, " m"]  # row norms of A (1 for a zero row)
    range_basis: Float[Tensor, "m r"]  # orthonormal, of the rows scaled to norm one

    def gap(self, b: Tensor) -> Tensor:
        scaled = b / self.scale
        outside = scaled - (scaled @ self.range_basis) @ self.range_basis.mT
        norm = torch.linalg.vector_norm(scaled, dim=-1)
        return torch.linalg.vector_norm(outside, dim=-1) / torch.where(norm == 0, 1.0, norm)


@final
@dataclass(frozen=True, eq=False)
class DenseProjector(AbstractAffineFactor):
    """The n x n projector onto null(A), stored: one matrix product a projection. For small n, or a learned `A`."""

    shape: tuple[int, int]
    rank: int
    projector: Float[Tensor, "n n"]
    rows: _Rows

    @property
    def like(self) -> Tensor:
        """The projector."""
        return self.projector

    def project(self, x: Float[Tensor, "B n"], point: Float[Tensor, "*B n"]) -> Float[Tensor, "B n"]:
        """One `addmm`; the projector is symmetric."""
        return torch.addmm(point, x, self.projector)

    def solve(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B n"]:
        """One product with the pseudo-inverse."""
        return b @ self.rows.pinv_transposed

    def multipliers(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """The transpose of `solve`."""
        return x @ self.rows.pinv_transposed.mT

    def gap(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B"]:
        """By an orthonormal basis of the range."""
        return self.rows.gap(b)


@final
@dataclass(frozen=True, eq=False)
class RowBasis(AbstractAffineFactor):
    """An orthonormal basis `V` (r x n) of the rows: `x - V^T V x`, cheaper than the projector where 2 r < n."""

    shape: tuple[int, int]
    rank: int
    basis: Float[Tensor, "r n"]
    rows: _Rows

    @property
    def like(self) -> Tensor:
        """The basis."""
        return self.basis

    def project(self, x: Float[Tensor, "B n"], point: Float[Tensor, "*B n"]) -> Float[Tensor, "B n"]:
        """Two thin products."""
        return torch.addmm(x + point, x @ self.basis.mT, self.basis, alpha=-1)

    def solve(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B n"]:
        """One product with the pseudo-inverse."""
        return b @ self.rows.pinv_transposed

    def multipliers(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """The transpose of `solve`."""
        return x @ self.rows.pinv_transposed.mT

    def gap(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B"]:
        """By an orthonormal basis of the range."""
        return self.rows.gap(b)


def dense_factor(A: Float[Tensor, "m n"], largest_projector: int) -> DenseProjector | RowBasis:
    """Factorise a dense matrix by its singular values, in float64.

    Args:
        A: `(m, n)`. If it requires grad, the factor differentiates with respect to it (through the pseudo-inverse, valid
            while the rank is constant); otherwise it is a constant.
        largest_projector: up to this `n` the projector is stored, above it the cheaper of the two forms.
    """
    fixed = A.detach().double()
    scale = torch.linalg.vector_norm(fixed, dim=-1)
    scale = torch.where(scale == 0, 1.0, scale)
    left, singular, right = torch.linalg.svd(fixed / scale[:, None], full_matrices=False)
    # Rounding of A itself: what differs by less is the same direction. numpy.linalg.matrix_rank uses the same rule.
    rank = int((singular > max(A.shape) * torch.finfo(A.dtype).eps * singular[0]).sum())
    left, singular, right = left[:, :rank], singular[:rank], right[:rank]
    pinv_transposed = (left / singular) @ right / scale[:, None]
    if rank < A.shape[0]:
        # On dependent rows the pseudo-inverse of the scaled rows is not that of A; they differ by the projection onto
        # the range of A, which only the gradient of b can see.
        range_basis = torch.linalg.qr(scale[:, None] * left).Q
        pinv_transposed = range_basis @ (range_basis.mT @ pinv_transposed)
    rows = _Rows(pinv_transposed.to(A.dtype), scale.to(A.dtype), left.to(A.dtype))
    shape = (A.shape[0], A.shape[1])
    if A.requires_grad:
        pinv = torch.linalg.pinv(A, rtol=max(A.shape) * torch.finfo(A.dtype).eps)
        projector = torch.eye(A.shape[1], dtype=A.dtype, device=A.device) - pinv @ A
        return DenseProjector(shape, rank, projector, _Rows(pinv.mT, rows.scale, rows.range_basis))
    if A.shape[1] <= largest_projector or 2 * rank >= A.shape[1]:
        projector = torch.eye(A.shape[1], dtype=torch.float64, device=A.device) - right.mT @ right
        return DenseProjector(shape, rank, projector.to(A.dtype), rows)
    return RowBasis(shape, rank, right.to(A.dtype), rows)
