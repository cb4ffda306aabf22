"""Scaling of a function's value or of a set. Combettes and Pesquet, Proximal Splitting Methods (2011), table 1, row iii."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractFunction, AbstractSet, Scalar


@final
@dataclass(frozen=True, eq=False)
class Scale(AbstractFunction):
    """The function `x -> factor g(x)`: the VALUE is scaled; `prox(x, s) = prox_g(x, s factor)`.

    To scale the argument of a set (make it larger) use `ScaleSet`; scaling the value of its indicator changes nothing.

    Args:
        term: the function `g`.
        factor: >= 0, a number or one value a sample `(B,)`, learned or not.

    Raises:
        TypeError: `term` is not a function with a value.
        ValueError: a constant factor is negative. A learned or per-sample negative factor gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Scale(il2o.L2Norm(), 5.0).value(torch.tensor([[3.0, 4.0]]))
        tensor([25.])
    """

    term: AbstractFunction
    factor: Scalar = field(metadata=SCALAR)

    def __post_init__(self) -> None:
        if not isinstance(self.term, AbstractFunction):
            raise TypeError(f"Scale takes an AbstractFunction; got {type(self.term).__name__} (for a set: ScaleSet).")
        object.__setattr__(self, "factor", nonnegative(self.factor, "Scale.factor", SCALAR))

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """`prox_g(x, step * factor)`."""
        return self.term.prox(x, step * self.factor)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`factor g(x)`."""
        return self.factor * self.term.value(x)


@final
@dataclass(frozen=True, eq=False)
class ScaleSet(AbstractSet):
    """The set `{factor y : y in set}`, larger for `factor > 1`; the projection is `factor P(x / factor)`.

    Args:
        set: the set.
        factor: > 0, a number or one value a sample `(B,)`, learned or not.

    Raises:
        TypeError: `set` is not an `AbstractSet`.
        ValueError: a constant factor is not positive. A learned or per-sample factor <= 0 gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.ScaleSet(il2o.Box(lower=0.0, upper=1.0), 3.0).project(torch.tensor([[2.0, 4.0]]))
        tensor([[2., 3.]])
    """

    set: AbstractSet
    factor: Scalar = field(metadata=SCALAR)

    def __post_init__(self) -> None:
        if not isinstance(self.set, AbstractSet):
            raise TypeError(f"ScaleSet takes an AbstractSet; got {type(self.set).__name__} (for a function: Scale).")
        object.__setattr__(self, "factor", nonnegative(self.factor, "ScaleSet.factor", SCALAR, strict=True))

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`factor P(x / factor)`."""
        factor = _batch.expand(self.factor, x)
        return factor * self.set.project(x / factor)
