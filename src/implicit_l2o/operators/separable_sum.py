"""Separable sum `g_1(x_1) + ... + g_k(x_k)`: prox by block. Parikh and Boyd, Proximal Algorithms (2014), section 2.1."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators._blocks import blocks, check_blocks
from implicit_l2o.operators.base import AbstractFunction, AbstractProximable, AbstractSet, Scalar


@final
@dataclass(frozen=True, eq=False)
class SeparableSum(AbstractFunction):
    """The function `sum_i g_i(x_i)` over consecutive blocks of the flattened sample.

    Terms may be functions and sets, mixed. (If all are sets, `ProductSet` also measures the violation.)

    Args:
        terms: the proximable terms `g_i`.
        sizes: how many entries each block has, or the shape of the block.

    Raises:
        TypeError: a term is not proximable; or, for `value`, has no value.
        ValueError: not one size for each term; or, when applied, sizes that do not add up to the sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> total = il2o.SeparableSum((il2o.L1Norm(), il2o.Box(lower=0.0)), sizes=(2, 1))
        >>> total.prox(torch.tensor([[3.0, 0.5, -1.0]]), 1.0)
        tensor([[2., 0., 0.]])
    """

    terms: tuple[AbstractProximable, ...]
    sizes: tuple[int | tuple[int, ...], ...]

    def __post_init__(self) -> None:
        # A tuple, because `restrict` looks for operators inside tuples.
        object.__setattr__(self, "terms", tuple(self.terms))
        object.__setattr__(self, "sizes", tuple(self.sizes))
        check_blocks(self.terms, self.sizes, AbstractProximable, "SeparableSum")

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """The prox of each term on its block."""
        parts = blocks(x, self.sizes, "SeparableSum")
        return _batch.pack(*(term.prox(part, step) for term, part in zip(self.terms, parts, strict=True))).reshape(
            x.shape
        )

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`sum_i g_i(x_i)`, indicator functions counted as zero (as in `Problem.objective`)."""
        total = x.new_zeros(x.shape[0])
        for term, part in zip(self.terms, blocks(x, self.sizes, "SeparableSum"), strict=True):
            if isinstance(term, AbstractSet):
                continue
            if not isinstance(term, AbstractFunction):
                raise TypeError(f"SeparableSum: a {type(term).__name__} has no value.")
            total = total + term.value(part)
        return total
