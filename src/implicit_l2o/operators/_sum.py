"""What sums of operators share: the check of their terms, the sum of constants, the sum of values."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from torch import Tensor

from implicit_l2o.operators.base import Scalar

Term = TypeVar("Term")


def checked_terms(name: str, terms: Iterable[Term], kind: type) -> tuple[Term, ...]:
    """The terms as a tuple, because `restrict` looks for operators inside tuples.

    Raises:
        ValueError: there is no term.
        TypeError: a term is of another kind.
    """
    terms = tuple(terms)
    if not terms:
        raise ValueError(f"{name} needs at least one term; got terms=().")
    for index, term in enumerate(terms):
        if not isinstance(term, kind):
            raise TypeError(f"{name}.terms[{index}] must be an {kind.__name__}; got a {type(term).__name__}.")
    return terms


def total_of(constants: Iterable[Scalar | None]) -> Scalar | None:
    """Their sum; None where one is unknown."""
    total: Scalar = 0.0
    for constant in constants:
        if constant is None:
            return None
        total = total + constant
    return total


def sum_over(terms: Sequence[Term], value: Callable[[Term], Tensor]) -> Tensor:
    """The sum of a tensor of each term, in their order."""
    total = value(terms[0])
    for term in terms[1:]:
        total = total + value(term)
    return total
