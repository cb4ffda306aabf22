"""The graph of a linear operator. Parikh and Boyd, Block splitting for distributed optimization (2014), section 4."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators._conjugate_gradient import conjugate_gradient
from implicit_l2o.operators._linear_map import linear_map
from implicit_l2o.operators.base import AbstractLinearOperator, AbstractSet

_DENSE_ROWS = 8192  # an inverse of 256 MiB in float32
_CHUNK = 256


@final
@dataclass(frozen=True, eq=False)
class Graph(AbstractSet):
    """The subspace `{(x, w) : w = scale K x}` of the flattened product space.

    With it a constraint on `K x` is one on `w` alone, and the splitting never meets the conditioning of `K`. The
    projection of `(x0, w0)` is `x = x0 + scale K^T q`, `w = w0 - q`, where `(I + scale^2 K K^T) q = w0 - scale K x0`.
    That matrix is inverted once, up to 8192 rows; above that the equation is solved by conjugate gradients, whose work
    and rounding grow with `scale |K|`.

    Build one and keep it: the inverse is made when it is first used.

    Args:
        K: the operator; constant, since the inverse is kept.
        scale: positive: the unit that `w` is measured in. A larger one makes a splitting correct `w` sooner and `x` later.
        tolerance: of conjugate gradients, relative.
        max_steps: the most iterations of conjugate gradients.

    Raises:
        TypeError: `K` is no linear operator.
        ValueError: `scale` is not positive and finite; or, when projecting, a sample has not as many entries as `(x, w)`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> graph = il2o.Graph(il2o.Matrix(torch.tensor([[1.0, 1.0]])))
        >>> graph.project(torch.tensor([[0.0, 0.0, 3.0]]))
        tensor([[1., 1., 2.]])
    """

    K: AbstractLinearOperator = field(metadata={"own_domain": True})
    scale: float = 1.0
    tolerance: float = field(default=1e-6, kw_only=True)
    max_steps: int = field(default=200, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.K, AbstractLinearOperator):
            raise TypeError(f"Graph takes a linear operator; got {type(self.K).__name__}.")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"Graph needs a positive, finite scale; got scale={self.scale}.")

    def join(self, x: Float[Tensor, "B *in"], w: Float[Tensor, "B *out"]) -> Float[Tensor, "B n"]:
        """The point `(x, w)` of the product space."""
        return _batch.pack(x, w)

    def split(self, z: Float[Tensor, "B n"]) -> tuple[Tensor, Tensor]:
        """`x` and `w`, in their own shapes."""
        sizes = math.prod(self.K.in_shape), math.prod(self.K.out_shape)
        if z.shape[-1] != sum(sizes):
            raise ValueError(f"Graph acts on samples of {sizes[0]} + {sizes[1]} entries, x and w; got {z.shape[-1]}.")
        x, w = _batch.unpack(z, (self.K.in_shape, self.K.out_shape))
        return x, w

    def lift(self, x: Float[Tensor, "B *in"]) -> Float[Tensor, "B n"]:
        """The point `(x, scale K x)` of the graph."""
        return self.join(x, self.scale * self.K.apply(x))

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The nearest point of the graph."""
        image, w = self.split(_batch.flatten(x))
        q = self._solve(_batch.flatten(torch.sub(w, self.K.apply(image), alpha=self.scale)))
        back = self.K.adjoint(q.reshape(w.shape))
        return self.join(torch.add(image, back, alpha=self.scale), w - q.reshape(w.shape)).reshape(x.shape)

    def _solve(self, residual: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
        if math.prod(self.K.out_shape) <= _DENSE_ROWS:
            return residual @ self._inverse_like(residual)
        return linear_map(residual, self._iterate, self._iterate)  # its own transpose

    def _iterate(self, residual: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
        return conjugate_gradient(self._gram, residual, tolerance=self.tolerance, max_steps=self.max_steps)

    def _gram(self, y: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
        y = y.reshape(y.shape[0], *self.K.out_shape)
        return _batch.flatten(y + self.scale**2 * self.K.apply(self.K.adjoint(y)))

    def _inverse_like(self, like: Tensor) -> Float[Tensor, "m m"]:
        key = (like.dtype, like.device)
        if key not in self._inverses:
            self._inverses[key] = self._invert(like)
        return self._inverses[key]

    @cached_property
    def _inverses(self) -> dict[tuple[torch.dtype, torch.device], Tensor]:
        return {}

    @torch.no_grad()
    def _invert(self, like: Tensor) -> Float[Tensor, "m m"]:
        """`(I + scale^2 K K^T)^-1`, factorised in float64: eigenvalues from 1 to `1 + scale^2 |K|^2`."""
        rows = math.prod(self.K.out_shape)
        identity = torch.eye(rows, dtype=like.dtype, device=like.device)
        gram = torch.cat([self._gram(part) for part in identity.split(_CHUNK)]).double()
        gram = (gram + gram.mT) / 2
        return torch.cholesky_inverse(torch.linalg.cholesky(gram)).to(like.dtype)
