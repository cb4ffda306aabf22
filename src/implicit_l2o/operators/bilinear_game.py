"""The pseudo-gradient of a two-player zero-sum matrix game. von Neumann (1928); Facchinei and Pang (2003), section 1.4."""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import MATRIX, VECTOR
from implicit_l2o.operators._parameters import is_constant
from implicit_l2o.operators._spectral import eigenvalue_bound
from implicit_l2o.operators.base import AbstractMonotone, Array, Scalar


@final
@dataclass(frozen=True, eq=False)
class BilinearGame(AbstractMonotone):
    """`F(u, v) = (A v, -A^T u) + linear` on the joined strategies `x = (u, v)`: `u` minimises `u.A v`, `v` maximises it.

    `F` is monotone, `<F(x) - F(y), x - y> = 0`, and `|A|`-Lipschitz, but cocoercive for no constant: a plain forward step
    circles away from the equilibrium. `DavisYin` and `ForwardBackward` refuse it; `ForwardBackwardForward` and
    `CombettesPesquet` take it.

    Args:
        matrix: what player one pays, `(m, n)` shared or `(B, m, n)`.
        linear: added to `F`; a number or a tensor that broadcasts against `x`, `(m + n,)` or `(B, m + n)`.

    Raises:
        ValueError: the matrix has another number of dimensions; a sample has not `m + n` entries.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> game = il2o.BilinearGame(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        >>> game.apply(torch.tensor([[1.0, 2.0, 3.0, 4.0]])), game.cocoercivity
        (tensor([[ 4., -3.,  2., -1.]]), None)
    """

    matrix: Tensor = field(metadata=MATRIX)
    linear: Array | None = field(default=None, metadata=VECTOR)
    _norm: float = field(default=math.nan, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.matrix.ndim not in (2, 3):
            raise ValueError(
                f"BilinearGame.matrix must have shape (m, n) or (B, m, n); got {tuple(self.matrix.shape)}."
            )
        if is_constant(self.matrix, MATRIX):
            gram = self._gram().double()
            largest = _largest(gram)
            rounding = 1 + 8 * gram.shape[-1] * torch.finfo(self.matrix.dtype).eps
            object.__setattr__(
                self, "_norm", math.sqrt(max(0.0, largest)) * rounding if largest == largest else math.nan
            )

    @property
    def lipschitz(self) -> Scalar:
        """`|A|`, the spectral norm: exact for a constant matrix, else a proven bound; detached.

        The bound is at most `n^(1/16)` times the norm, a third above it for n = 100, and takes three products of matrices.
        """
        if is_constant(self.matrix, MATRIX):
            return self._norm
        bound = eigenvalue_bound(self._gram(), squarings=2).sqrt()
        return bound.squeeze(0) if bound.shape == (1,) else bound

    @property
    def cocoercivity(self) -> None:
        """None: a rotation is not cocoercive."""
        return None

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`(A v, -A^T u) + linear`."""
        m, n = self.matrix.shape[-2:]
        flat = _batch.flatten(x)
        if flat.shape[-1] != m + n:
            raise ValueError(
                f"BilinearGame.matrix has shape {tuple(self.matrix.shape)}, so a sample has m + n = {m + n} entries; got "
                f"{flat.shape[-1]}."
            )
        u, v = flat.split((m, n), -1)
        if self.matrix.ndim == 2:
            pays, earns = v @ self.matrix.mT, u @ self.matrix
        else:
            pays, earns = (self.matrix @ v[..., None])[..., 0], (u[:, None] @ self.matrix)[:, 0]
        slope = torch.cat([pays, -earns], -1).reshape(x.shape)
        return slope if self.linear is None else slope + self.linear

    def _gram(self) -> Tensor:
        A = self.matrix.detach()
        return A @ A.mT if A.shape[-2] <= A.shape[-1] else A.mT @ A


def _largest(gram: Tensor) -> float:
    """The largest eigenvalue; 0 for a player without actions."""
    if not gram.numel():
        return 0.0
    return float(torch.linalg.eigvalsh(gram)[-1]) if bool(torch.isfinite(gram).all()) else math.nan
