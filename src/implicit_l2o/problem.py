"""The problem every splitting solves: find x with `0 in F(x) + dg(x) + dh(x) + K^T dl(K x)`."""

from dataclasses import dataclass, field

from torch import Tensor

from implicit_l2o._batch import Batched
from implicit_l2o.operators.base import (
    AbstractFunction,
    AbstractLinearOperator,
    AbstractMonotone,
    AbstractProximable,
    AbstractSet,
    AbstractSmooth,
)

_KINDS: dict[str, type] = {
    "F": AbstractMonotone,
    "g": AbstractProximable,
    "h": AbstractProximable,
    "K": AbstractLinearOperator,
    "l": AbstractProximable,
}


@dataclass(frozen=True, eq=False)
class Problem(Batched):
    """A monotone inclusion `0 in F(x) + dg(x) + dh(x) + K^T dl(K x)`; for `F = grad f`, minimise `f + g + h + l(K .)`.

    Args:
        F: single-valued and monotone: `grad f` in optimization, the pseudo-gradient in a game. None is zero.
        g: proximable; in `DavisYin` the answer lies in its domain exactly. None is zero.
        h: proximable; reached at convergence. None is zero.
        K: linear operator, with `l`.
        l: proximable, composed with `K`.

    Raises:
        TypeError: a term is not of the kind its place asks for.
        ValueError: `K` without `l`, or `l` without `K`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> problem = il2o.Problem(F=il2o.QuadraticCost(linear=torch.ones(3), diagonal=1.0), g=il2o.Box(lower=0.0))
        >>> problem.objective(torch.ones(1, 3))
        tensor([4.5000])
    """

    F: AbstractMonotone | None = None
    g: AbstractProximable | None = None
    h: AbstractProximable | None = None
    K: AbstractLinearOperator | None = None
    l: AbstractProximable | None = field(default=None, metadata={"own_domain": True})

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            term = getattr(self, name)
            if term is not None and not isinstance(term, kind):
                raise TypeError(f"Problem.{name} must be an {kind.__name__} or None; got {type(term).__name__}.")
        if (self.K is None) != (self.l is None):
            raise ValueError("Problem needs K and l together: the term is l(K x). For l(x) alone use g or h.")

    def objective(self, x: Tensor) -> Tensor:
        """`f(x) + g(x) + h(x) + l(K x)` per sample, indicator functions counted as zero.

        Raises:
            TypeError: a term has no value (a game's `F`, a prox known only as a map).
        """
        total = x.new_zeros(x.shape[0])
        for name in ("F", "g", "h", "l"):
            term = getattr(self, name)
            if term is None or isinstance(term, AbstractSet):
                continue
            if not isinstance(term, AbstractSmooth | AbstractFunction):
                raise TypeError(f"Problem.{name} is a {type(term).__name__}, which has no value.")
            at = self.K.apply(x) if name == "l" and self.K is not None else x
            total = total + term.value(at)
        return total

    def violation(self, x: Tensor) -> Tensor:
        """The largest Euclidean distance of `x` (of `K x` for `l`) to a set among `g, h, l`, per sample."""
        worst = x.new_zeros(x.shape[0])
        for name in ("g", "h", "l"):
            term = getattr(self, name)
            if isinstance(term, AbstractSet):
                at = self.K.apply(x) if name == "l" and self.K is not None else x
                worst = worst.maximum(term.violation(at))
        return worst
