"""Terms over consecutive blocks of the flattened sample."""

import math
from collections.abc import Sequence

from torch import Tensor

from implicit_l2o import _batch


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
