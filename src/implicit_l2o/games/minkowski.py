"""Minkowski sums: the strategy is `v = x_1 + ... + x_K` with `x_k in C_k`, and `F` sees `v` alone.

Heaton, McKenzie, Li, Fung, Osher, Yin, "Learn to Predict Equilibria via Fixed Point Networks" (2021), section 5: never
project on the sum; keep the summands. The step follows from the product space, on which the map is `A^T F(A x)` with
`A x = sum_k x_k`, `|A|^2 = K`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators.base import AbstractMonotone, AbstractSet, Scalar
from implicit_l2o.operators.product_set import ProductSet
from implicit_l2o.problem import Problem


@final
@dataclass(frozen=True, eq=False)
class BlockSum(AbstractMonotone):
    """`x -> (F(v), ..., F(v))` with `v = sum_k x_k`, on samples `(K, *shape)`: `A^T F A` for the sum `A` of the blocks.

    If `F` is `beta`-cocoercive this is `beta / K`-cocoercive, and `K L`-Lipschitz if `F` is `L`-Lipschitz
    (Bauschke and Combettes 2017, proposition 4.12, with `|A|^2 = K`): **the step shrinks with the number of blocks**, and no
    larger one is safe, for the constants are attained where the blocks move together. So use few blocks: one for each origin
    of a traffic network rather than one for each pair.

    Args:
        inner: `F`, on samples `(*shape,)`.
        blocks: `K`, at least 1.

    Raises:
        ValueError: fewer than one block; or, when applied, another number of them.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.games import BlockSum
        >>> F = BlockSum(il2o.QuadraticCost(diagonal=2.0), blocks=3)
        >>> F.apply(torch.ones(1, 3, 2))[0, 0], il2o.QuadraticCost(diagonal=2.0).cocoercivity, round(F.cocoercivity, 4)
        (tensor([6., 6.]), 0.5, 0.1667)
    """

    inner: AbstractMonotone = field(metadata={"own_domain": True})
    blocks: int

    def __post_init__(self) -> None:
        if not isinstance(self.inner, AbstractMonotone):
            raise TypeError(f"BlockSum.inner must be an AbstractMonotone; got {type(self.inner).__name__}.")
        if self.blocks < 1:
            raise ValueError(f"BlockSum needs blocks >= 1; got blocks={self.blocks}.")

    @property
    def lipschitz(self) -> Scalar | None:
        """`K L`."""
        constant = self.inner.lipschitz
        return None if constant is None else self.blocks * constant

    @property
    def cocoercivity(self) -> Scalar | None:
        """`beta / K`."""
        constant = self.inner.cocoercivity
        return None if constant is None else constant / self.blocks

    def apply(self, x: Float[Tensor, "B K *shape"]) -> Float[Tensor, "B K *shape"]:
        """`F(sum_k x_k)` for every block."""
        if x.ndim < 3 or x.shape[1] != self.blocks:
            raise ValueError(f"BlockSum takes x of shape (B, {self.blocks}, *shape); got {tuple(x.shape)}.")
        return self.inner.apply(x.sum(1))[:, None].expand_as(x)


def minkowski_problem(
    F: AbstractMonotone,
    inside: Sequence[AbstractSet],
    meets: Sequence[AbstractSet] | None = None,
    *,
    shape: int | tuple[int, ...],
) -> Problem:
    """The variational inequality of `F` on `C_1 + ... + C_K`, `C_k = inside_k` intersected with `meets_k`.

    An unknown is `x` of shape `(B, K, *shape)`; the strategy is `v = x.sum(1)`.

    Args:
        F: monotone, on samples of the given shape.
        inside: a set for each block, which every answer keeps exactly.
        meets: as many, kept at convergence; None for no more constraints.
        shape: of a block; an integer for a vector.

    Raises:
        ValueError: no block, or not as many sets of one kind as of the other.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.games import minkowski_problem
        >>> congestion = il2o.QuadraticCost(diagonal=1.0)  # two groups share two roads; the first may not use the second
        >>> groups = [il2o.Box(0.0, torch.tensor([1.0, 0.0])), il2o.NonnegativeOrthant()]
        >>> trips = [il2o.AffineSet(torch.ones(1, 2), torch.ones(1))] * 2
        >>> problem = minkowski_problem(congestion, groups, trips, shape=2)
        >>> il2o.solve(il2o.DavisYin(problem), torch.zeros(1, 2, 2)).x.sum(1).round(decimals=2)
        tensor([[1., 1.]])
    """
    blocks = len(inside)
    if blocks < 1 or (meets is not None and len(meets) != blocks):
        second = "None" if meets is None else str(len(meets))
        raise ValueError(f"minkowski_problem needs one set a block, as many of both; got {blocks} and {second}.")
    sizes = (shape,) * blocks
    h = None if meets is None else ProductSet(tuple(meets), sizes)
    return Problem(F=BlockSum(F, blocks), g=ProductSet(tuple(inside), sizes), h=h)
