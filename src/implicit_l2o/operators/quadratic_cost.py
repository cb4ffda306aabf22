"""Quadratic cost `w . x + x . (d * x) / 2 + x . Q x / 2`. Boyd and Vandenberghe, Convex Optimization (2004), section 4.4."""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import MATRIX, VECTOR
from implicit_l2o.operators._parameters import is_constant, nonnegative
from implicit_l2o.operators._spectral import eigenvalue_bound
from implicit_l2o.operators.base import AbstractSmooth, Array, Scalar


@final
@dataclass(frozen=True, eq=False)
class QuadraticCost(AbstractSmooth):
    """The function `f(x) = <linear, x> + <x, diagonal * x> / 2 + <x, matrix x> / 2`; each part may be left out.

    The gradient is `linear + diagonal * x + matrix x`. `lipschitz` is `max(diagonal)` plus the largest eigenvalue of
    `matrix`: exact for a constant matrix, a proven bound at most 11 % above it (n <= 1000) for a learned or per-sample one.

    Args:
        linear: a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.
        diagonal: >= 0, the same forms.
        matrix: symmetric positive semidefinite, `(n, n)` shared or `(B, n, n)`; it acts on the flattened sample.

    Raises:
        ValueError: a constant `diagonal` is negative; `matrix` is not square; a constant matrix is not finite, not
            symmetric or not positive semidefinite (the message says by how much). A learned or per-sample matrix is not
            checked, which would factorise it in every forward pass: build it as `L L^T`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> cost = il2o.QuadraticCost(linear=torch.tensor([1.0, -1.0]), diagonal=0.5)
        >>> cost.apply(torch.tensor([[2.0, 2.0]])), cost.value(torch.tensor([[2.0, 2.0]])), cost.lipschitz
        (tensor([[2., 0.]]), tensor([2.]), 0.5)
    """

    linear: Array | None = field(default=None, metadata=VECTOR)
    diagonal: Array | None = field(default=None, metadata=VECTOR)
    matrix: Tensor | None = field(default=None, metadata=MATRIX)
    _largest: float = field(default=math.nan, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.diagonal is not None:
            object.__setattr__(self, "diagonal", nonnegative(self.diagonal, "QuadraticCost.diagonal", VECTOR))
        if self.matrix is None:
            return
        if self.matrix.ndim not in (2, 3) or self.matrix.shape[-1] != self.matrix.shape[-2]:
            raise ValueError(
                f"QuadraticCost.matrix must have shape (n, n) or (B, n, n); got {tuple(self.matrix.shape)}."
            )
        if is_constant(self.matrix, MATRIX):
            object.__setattr__(self, "_largest", _largest_eigenvalue(self.matrix))

    @property
    def lipschitz(self) -> Scalar:
        """`max(diagonal) + lambda_max(matrix)` or a proven bound on it, per sample where the parameters are; detached."""
        bound = 0.0
        if isinstance(self.diagonal, Tensor):
            diagonal = self.diagonal.detach()
            bound = _batch.flatten(diagonal).amax(-1) if diagonal.ndim > 1 else diagonal.max()
            bound = bound.squeeze(0) if bound.shape == (1,) else bound
        elif self.diagonal is not None:
            bound = float(self.diagonal)
        if self.matrix is None:
            return bound
        if is_constant(self.matrix, MATRIX):
            return bound + self._largest
        largest = eigenvalue_bound(self.matrix)
        return bound + (largest.squeeze(0) if largest.shape == (1,) else largest)

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`linear + diagonal * x + matrix x`."""
        if isinstance(self.linear, Tensor) and isinstance(self.diagonal, float) and self.matrix is None:
            return torch.add(self.linear, x, alpha=self.diagonal)  # one pass over memory
        gradient = self._curvature(x)
        return gradient if self.linear is None else gradient + self.linear

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`<linear, x> + <x, diagonal * x + matrix x> / 2`."""
        slope = self._curvature(x) / 2
        return _batch.dot(x, slope if self.linear is None else slope + self.linear)

    def _curvature(self, x: Tensor) -> Tensor:
        """`diagonal * x + matrix x`."""
        bent = torch.zeros_like(x) if self.diagonal is None else self.diagonal * x
        if self.matrix is None:
            return bent
        flat = _batch.flatten(x)
        if flat.shape[-1] != self.matrix.shape[-1]:
            raise ValueError(
                f"QuadraticCost.matrix has shape {tuple(self.matrix.shape)}; got samples of {flat.shape[-1]} entries."
            )
        turned = flat @ self.matrix.mT if self.matrix.ndim == 2 else (self.matrix @ flat[..., None])[..., 0]
        return bent + turned.reshape(x.shape)


def _largest_eigenvalue(matrix: Tensor) -> float:
    """The largest eigenvalue of a constant matrix, after checking that it is symmetric positive semidefinite."""
    if not torch.isfinite(matrix).all():
        raise ValueError("QuadraticCost.matrix has entries that are NaN or infinite.")
    tolerance = 10 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps
    asymmetry = float((matrix - matrix.mT).abs().max())
    if asymmetry > tolerance * float(matrix.abs().max()):
        raise ValueError(
            f"QuadraticCost.matrix must be symmetric; the largest |Q_ij - Q_ji| is {asymmetry:.3g}. "
            "Only its symmetric part enters the cost: pass (Q + Q.mT) / 2."
        )
    eigenvalues = torch.linalg.eigvalsh(matrix.double())
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest < -tolerance * max(abs(smallest), abs(largest)):
        raise ValueError(
            "QuadraticCost.matrix must be positive semidefinite for a convex cost; its smallest eigenvalue is "
            f"{smallest:.3g} (the largest: {largest:.3g})."
        )
    # A negative rounding error of a zero matrix is not a Lipschitz constant; the factor covers the eigenvalues' rounding.
    return max(largest, 0.0) * (1 + tolerance)
