"""Sum of smooth costs: a learned one beside an analytic one. Bauschke and Combettes (2017), proposition 18.15."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._sum import checked_terms, sum_over, total_of
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
        object.__setattr__(self, "terms", checked_terms("SmoothSum", self.terms, AbstractSmooth))

    @property
    def lipschitz(self) -> Scalar | None:
        """`L_1 + ... + L_k`."""
        return total_of(term.lipschitz for term in self.terms)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`sum_i f_i(x)`, per sample."""
        return sum_over(self.terms, lambda term: term.value(x))

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`sum_i grad f_i(x)`, per sample."""
        return sum_over(self.terms, lambda term: term.apply(x))
