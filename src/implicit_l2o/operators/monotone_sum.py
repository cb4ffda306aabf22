"""Sum of monotone maps: the costs of the players beside what couples them. Bauschke and Combettes (2017), prop. 4.12."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._sum import checked_terms, sum_over, total_of
from implicit_l2o.operators.base import AbstractMonotone, Scalar


@final
@dataclass(frozen=True, eq=False)
class MonotoneSum(AbstractMonotone):
    """`F(x) = F_1(x) + ... + F_k(x)`.

    `lipschitz` is the sum of the constants. `cocoercivity` is `1 / (1/beta_1 + ... + 1/beta_k)`; it is None where one term
    states none, a game's bilinear part for instance.

    Args:
        terms: the maps, at least one, all of the whole sample `x`.

    Raises:
        TypeError: a term is not an `AbstractMonotone`.
        ValueError: there is no term.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> rotation = il2o.BilinearGame(torch.tensor([[2.0]]))
        >>> F = il2o.MonotoneSum((rotation, il2o.QuadraticCost(diagonal=1.0)))
        >>> F.apply(torch.tensor([[1.0, 1.0]])), round(F.lipschitz, 4), F.cocoercivity
        (tensor([[ 3., -1.]]), 3.0, None)
    """

    terms: tuple[AbstractMonotone, ...] = field(metadata={"own_domain": False})

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", checked_terms("MonotoneSum", self.terms, AbstractMonotone))

    @property
    def lipschitz(self) -> Scalar | None:
        """`L_1 + ... + L_k`; None where one is unknown."""
        return total_of(term.lipschitz for term in self.terms)

    @property
    def cocoercivity(self) -> Scalar | None:
        """`1 / (1/beta_1 + ... + 1/beta_k)`; None where one is unknown."""
        betas = (term.cocoercivity for term in self.terms)
        inverse = total_of(None if beta is None else 1.0 / beta for beta in betas)
        if inverse is None or isinstance(inverse, Tensor):
            return None if inverse is None else 1.0 / inverse
        return 1.0 / inverse if inverse > 0 else float("inf")

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`sum_i F_i(x)`, per sample."""
        return sum_over(self.terms, lambda term: term.apply(x))
