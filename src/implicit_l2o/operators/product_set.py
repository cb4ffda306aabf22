"""Product of sets `C_1 x ... x C_k`. Bauschke and Combettes, Convex Analysis (2017), prop. 29.4: project each block."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators._blocks import blocks, check_blocks
from implicit_l2o.operators.base import AbstractSet


@final
@dataclass(frozen=True, eq=False)
class ProductSet(AbstractSet):
    """The product `{(x_1, ..., x_k) : x_i in C_i}` over consecutive blocks of the flattened sample.

    Args:
        sets: the sets `C_i`.
        sizes: how many entries each block has, or the shape of the block.

    Raises:
        TypeError: an entry of `sets` is not an `AbstractSet`.
        ValueError: not one size for each set; or, when projecting, sizes that do not add up to the sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> product = il2o.ProductSet((il2o.NonnegativeOrthant(), il2o.L2Ball(1.0)), sizes=(1, 2))
        >>> product.project(torch.tensor([[-1.0, 3.0, 4.0]]))
        tensor([[0.0000, 0.6000, 0.8000]])
    """

    sets: tuple[AbstractSet, ...]
    sizes: tuple[int | tuple[int, ...], ...]

    def __post_init__(self) -> None:
        # A tuple, because `restrict` looks for operators inside tuples.
        object.__setattr__(self, "sets", tuple(self.sets))
        object.__setattr__(self, "sizes", tuple(self.sizes))
        check_blocks(self.sets, self.sizes, AbstractSet, "ProductSet")

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Each block onto its set."""
        parts = blocks(x, self.sizes, "ProductSet")
        projected = (set_.project(part) for set_, part in zip(self.sets, parts, strict=True))
        return _batch.pack(*projected).reshape(x.shape)
