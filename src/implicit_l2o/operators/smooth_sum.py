"""Sum of smooth costs: a learned one beside an analytic one. Bauschke and Combettes (2017), proposition 18.15."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators.base import AbstractSmooth, Scalar


@final
@dataclass(frozen=True, eq=False)
class SmoothSum(AbstractSmooth):
    """The function `f(x) = f_1(x) + ... + f_k(x)`, its gradient the sum of the gradients.

    `lipschitz` is the sum of the terms' constants, a bound; it is None where a term's constant is unknown.

    Args:
        terms: the smooth functions `f_i`, at least one, all of the whole sample `x`.

    Raises:
        TypeError: a term is not an `AbstractSmooth`.
        ValueError: there is no term.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> expert = il2o.QuadraticCost(diagonal=0.5)
        >>> cost = il2o.SmoothSum((il2o.LinearCost(torch.tensor([1.0, -1.0])), expert))
        >>> cost.apply(torch.tensor([[2.0, 2.0]])), cost.value(torch.tensor([[2.0, 2.0]])), cost.lipschitz
        (tensor([[2., 0.]]), tensor([2.]), 0.5)
    """

    terms: tuple[AbstractSmooth, ...] = field(metadata={"own_domain": False})

    def __post_init__(self) -> None:
        # A tuple, because `restrict` looks for operators inside tuples.
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms:
            raise ValueError("SmoothSum needs at least one term; got terms=().")
        for index, term in enumerate(self.terms):
            if not isinstance(term, AbstractSmooth):
                raise TypeError(f"SmoothSum.terms[{index}] must be an AbstractSmooth; got a {type(term).__name__}.")

    @property
    def lipschitz(self) -> Scalar | None:
        """`L_1 + ... + L_k`."""
        total: Scalar = 0.0
        for term in self.terms:
            constant = term.lipschitz
            if constant is None:
                return None
            total = total + constant
        return total

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`sum_i f_i(x)`, per sample."""
        total = self.terms[0].value(x)
        for term in self.terms[1:]:
            total = total + term.value(x)
        return total

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`sum_i grad f_i(x)`, per sample."""
        total = self.terms[0].apply(x)
        for term in self.terms[1:]:
            total = total + term.apply(x)
        return total
