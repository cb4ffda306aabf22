"""Translation of a function or a set. Combettes and Pesquet, Proximal Splitting Methods (2011), table 1, row ii."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o._batch import VECTOR
from implicit_l2o.operators.base import AbstractFunction, AbstractSet, Array, Scalar


@final
@dataclass(frozen=True, eq=False)
class Translate(AbstractFunction):
    """The function `x -> g(x - by)`; `prox(x, s) = by + prox_g(x - by, s)`. For a set use `TranslateSet`.

    Args:
        term: the function `g`.
        by: a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.

    Raises:
        TypeError: `term` is not a function with a value.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Translate(il2o.L1Norm(), by=3.0).prox(torch.tensor([[0.0, 3.5]]), 1.0)
        tensor([[1., 3.]])
    """

    term: AbstractFunction
    by: Array = field(metadata=VECTOR)

    def __post_init__(self) -> None:
        if not isinstance(self.term, AbstractFunction):
            raise TypeError(
                f"Translate takes an AbstractFunction; got {type(self.term).__name__} (for a set use TranslateSet)."
            )

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """`by + prox_g(x - by, step)`."""
        return self.by + self.term.prox(x - self.by, step)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`g(x - by)`."""
        return self.term.value(x - self.by)


@final
@dataclass(frozen=True, eq=False)
class TranslateSet(AbstractSet):
    """The set `{y + by : y in set}`; the projection is `by + P(x - by)`.

    Args:
        set: the set.
        by: a number, or a tensor that broadcasts against `x`: `(n,)` shared, `(1, *shape)` or `(B, *shape)`.

    Raises:
        TypeError: `set` is not an `AbstractSet`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.TranslateSet(il2o.NonnegativeOrthant(), by=1.0).project(torch.tensor([[0.0, 2.0]]))
        tensor([[1., 2.]])
    """

    set: AbstractSet
    by: Array = field(metadata=VECTOR)

    def __post_init__(self) -> None:
        if not isinstance(self.set, AbstractSet):
            raise TypeError(f"TranslateSet takes an AbstractSet; got {type(self.set).__name__}.")

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`by + P(x - by)`."""
        return self.by + self.set.project(x - self.by)
