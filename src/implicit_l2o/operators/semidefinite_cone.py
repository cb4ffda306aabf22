"""Cone of positive semidefinite matrices. Parikh and Boyd, Proximal Algorithms (2014), section 6.3.3.

Its derivative: Malick and Sendov, "Clarke generalized Jacobian of the projection onto the cone of positive semidefinite
matrices" (2006).
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators.base import AbstractSet


@final
@dataclass(frozen=True, eq=False)
class SemidefiniteCone(AbstractSet):
    """The cone of symmetric positive semidefinite matrices; a sample is a matrix, of which the symmetric part counts.

    With `X = Q diag(l) Q^T` the projection is `Q diag(max(l, 0)) Q^T`. Its derivative in a direction `H` is
    `Q (W o Q^T H Q) Q^T` with the divided differences `W_ij = (l_i^+ - l_j^+) / (l_i - l_j)`, which is exact also where
    eigenvalues coincide. Second derivatives need eigenvalues that differ.

    Raises:
        ValueError: when projecting, a sample is not a square matrix.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.SemidefiniteCone().project(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])).round(decimals=4)
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The nearest positive semidefinite matrix."""
        if x.ndim != 3 or x.shape[1] != x.shape[2]:
            raise ValueError(f"SemidefiniteCone acts on matrices (B, n, n); got x of shape {tuple(x.shape)}.")
        return _Projection.apply((x + x.mT) / 2)  # pyright: ignore[reportReturnType]


def divided_differences(values: Float[Tensor, "*B n"]) -> Float[Tensor, "*B n n"]:
    """`(l_i^+ - l_j^+) / (l_i - l_j)`: 1 where both are positive, 0 where neither is, in between where one is."""
    positive = values > 0
    up, down = values.clamp_min(0), (-values).clamp_min(0)
    across = up[..., :, None] / torch.where(
        positive[..., :, None] & ~positive[..., None, :], up[..., :, None] + down[..., None, :], 1.0
    )
    both = positive[..., :, None] & positive[..., None, :]
    first = positive[..., :, None] & ~positive[..., None, :]
    weights = torch.where(first, across, 0.0)
    return torch.where(both, 1.0, weights + weights.mT)


def _finite_eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; of a matrix with NaN, which LAPACK refuses, NaN."""
    sound = torch.isfinite(x).all(-1, keepdim=True).all(-2, keepdim=True)
    values, vectors = torch.linalg.eigh(torch.where(sound, x, 0.0))
    return torch.where(sound.squeeze(-1), values, torch.nan), vectors


class _Projection(torch.autograd.Function):
    """The projection of symmetric matrices, with its own derivative instead of the eigenvectors', which are not unique."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Project."""
        values, vectors = _finite_eigh(x)
        return (vectors * values.clamp_min(0)[..., None, :]) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the matrix: in a differentiable backward its eigenvectors are differentiated."""
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The derivative is self-adjoint."""
        (x,) = ctx.saved_tensors
        values, vectors = _finite_eigh(x)
        inner = vectors.mT @ ((v + v.mT) / 2) @ vectors
        return vectors @ (divided_differences(values) * inner) @ vectors.mT
