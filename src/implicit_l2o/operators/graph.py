"""The graph of a linear operator. Parikh and Boyd, Block splitting for distributed optimization (2014), section 4."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators._conjugate_gradient import conjugate_gradient
from implicit_l2o.operators._linear_map import linear_map
from implicit_l2o.operators._symmetry import Block, check_commutes, symmetric_blocks
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
    and rounding grow with `scale |K|`. Symmetries of `K` cut the matrix into blocks: two involutions make the inverse four
    times smaller, and as much faster.

    Build one and keep it: the inverse is made when it is first used.

    Args:
        K: the operator; constant, since the inverse is kept.
        scale: positive: the unit that `w` is measured in. A larger one makes a splitting correct `w` sooner and `x` later.
        involutions: permutations `(m,)` of the flattened `K x`, each its own inverse, that commute with each other and with
            `K K^T` (the flips of a scanner's geometry, say).
        tolerance: of conjugate gradients, relative.
        max_steps: the most iterations of conjugate gradients.

    Raises:
        TypeError: `K` is no linear operator.
        ValueError: `scale` is not positive and finite; or, when projecting, a sample has not as many entries as `(x, w)`, or
            `K K^T` does not commute with an involution.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> graph = il2o.Graph(il2o.Matrix(torch.tensor([[1.0, 1.0]])))
        >>> graph.project(torch.tensor([[0.0, 0.0, 3.0]]))
        tensor([[1., 1., 2.]])
    """

    K: AbstractLinearOperator = field(metadata={"own_domain": True})
    scale: float = 1.0
    involutions: tuple[Int[Tensor, " m"], ...] = field(default=(), kw_only=True)
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
        if residual.shape[1] > _DENSE_ROWS:
            return linear_map(residual, self._iterate, self._iterate)  # its own transpose
        inverses = self._inverses_like(residual)
        if len(inverses) == 1:
            return residual @ inverses[0]
        return linear_map(residual, self._by_blocks, self._by_blocks)

    def _iterate(self, residual: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
        return conjugate_gradient(self._gram, residual, tolerance=self.tolerance, max_steps=self.max_steps)

    def _by_blocks(self, residual: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
        pairs = zip(self._blocks_like(residual), self._inverses_like(residual), strict=True)
        parts = [(block, block.gather(residual) @ inverse) for block, inverse in pairs]
        rows = residual.shape[1]
        return torch.stack([block.scatter(part, rows) for block, part in parts]).sum(0)

    def _gram(self, y: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
        y = y.reshape(y.shape[0], *self.K.out_shape)
        return _batch.flatten(y + self.scale**2 * self.K.apply(self.K.adjoint(y)))

    @cached_property
    def _kept(self) -> dict[Any, Any]:
        return {}

    def _blocks_like(self, like: Tensor) -> tuple[Block, ...]:
        key = ("blocks", like.dtype, like.device)
        if key not in self._kept:
            blocks = symmetric_blocks([p.cpu() for p in self.involutions], math.prod(self.K.out_shape))
            self._kept[key] = tuple(
                Block(block.members.to(like.device), block.coefficients.to(like.device, like.dtype)) for block in blocks
            )
        return self._kept[key]

    def _inverses_like(self, like: Tensor) -> tuple[Float[Tensor, "k k"], ...]:
        key = ("inverses", like.dtype, like.device)
        if key not in self._kept:
            blocks = self._blocks_like(like)
            if self.involutions:
                check_commutes(self._gram, [p.to(like.device) for p in self.involutions], like)
            self._kept[key] = tuple(self._invert(block, like) for block in blocks)
        return self._kept[key]

    @torch.no_grad()
    def _invert(self, block: Block, like: Tensor) -> Float[Tensor, "k k"]:
        """`(I + scale^2 K K^T)^-1` in a block, factorised in float64: eigenvalues from 1 to `1 + scale^2 |K|^2`."""
        size, rows = block.members.shape[1], math.prod(self.K.out_shape)
        basis = torch.eye(size, dtype=like.dtype, device=like.device).split(_CHUNK)
        gram = torch.cat([block.gather(self._gram(block.scatter(part, rows))) for part in basis]).double()
        gram = (gram + gram.mT) / 2
        return torch.cholesky_inverse(torch.linalg.cholesky(gram)).to(like.dtype)
