"""Sum of monotone maps: the costs of the players beside what couples them. Bauschke and Combettes (2017), prop. 4.12."""

from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

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
        # A tuple, because `restrict` looks for operators inside tuples.
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms:
            raise ValueError("MonotoneSum needs at least one term; got terms=().")
        for index, term in enumerate(self.terms):
            if not isinstance(term, AbstractMonotone):
                raise TypeError(f"MonotoneSum.terms[{index}] must be an AbstractMonotone; got a {type(term).__name__}.")

    @property
    def lipschitz(self) -> Scalar | None:
        """`L_1 + ... + L_k`; None where one is unknown."""
        total: Scalar = 0.0
        for term in self.terms:
            constant = term.lipschitz
            if constant is None:
                return None
            total = total + constant
        return total

    @property
    def cocoercivity(self) -> Scalar | None:
        """`1 / (1/beta_1 + ... + 1/beta_k)`; None where one is unknown."""
        inverse: Scalar = 0.0
        for term in self.terms:
            constant = term.cocoercivity
            if constant is None:
                return None
            inverse = inverse + 1.0 / constant
        if isinstance(inverse, Tensor):
            return 1.0 / inverse
        return 1.0 / inverse if inverse > 0 else float("inf")

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`sum_i F_i(x)`, per sample."""
        total = self.terms[0].apply(x)
        for term in self.terms[1:]:
            total = total + term.apply(x)
        return total
