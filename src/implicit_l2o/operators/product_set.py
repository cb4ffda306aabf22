"""Product of sets `C_1 x ... x C_k`. Bauschke and Combettes, Convex Analysis (2017), prop. 29.4: project each block."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators.base import AbstractSet


def blocks(x: Tensor, sizes: Sequence[int | tuple[int, ...]], name: str) -> tuple[Tensor, ...]:
    """Cut flattened samples into blocks: `(B, size)` for an integer, `(B, *shape)` for a shape."""
    shapes = [(size,) if isinstance(size, int) else tuple(size) for size in sizes]
    entries = math.prod(x.shape[1:])
    if sum(math.prod(shape) for shape in shapes) != entries:
        raise ValueError(f"{name}: sizes {list(sizes)} do not add up to the {entries} entries of a sample.")
    return _batch.unpack(_batch.flatten(x), shapes)


def check_blocks(terms: Sequence[object], sizes: Sequence[object], kind: type, name: str) -> None:
    """Raise unless there is one term of the given kind for each size."""
    if len(terms) != len(sizes) or not terms:
        raise ValueError(f"{name} needs one size for each term; got {len(terms)} terms and {len(sizes)} sizes.")
    for i, term in enumerate(terms):
        if not isinstance(term, kind):
            raise TypeError(f"{name}: term {i} must be an {kind.__name__}; got {type(term).__name__}.")


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
