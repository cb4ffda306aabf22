"""Games as variational inequalities: find `x in C` with `<F(x), y - x> >= 0` for all `y in C`.

Facchinei and Pang, Finite-Dimensional Variational Inequalities and Complementarity Problems (2003), section 1.4.2: where
every player's cost is convex in its own strategy, the equilibria of a game are the solutions for the pseudo-gradient `F`,
the players' own gradients joined, and `C` the product of their strategy sets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators.base import AbstractMonotone, AbstractProximable, AbstractSet
from implicit_l2o.operators.free import Free
from implicit_l2o.operators.product_set import ProductSet
from implicit_l2o.operators.separable_sum import SeparableSum
from implicit_l2o.problem import Problem
from implicit_l2o.splittings.base import AbstractSplitting, Step
from implicit_l2o.splittings.combettes_pesquet import CombettesPesquet
from implicit_l2o.splittings.davis_yin import DavisYin
from implicit_l2o.splittings.forward_backward import ForwardBackward
from implicit_l2o.splittings.forward_backward_forward import ForwardBackwardForward


@final
@dataclass(frozen=True, eq=False)
class Player:
    """One player of a game: how many numbers its strategy has, and what they may be, `C1` and `C2` intersected.

    Args:
        size: entries of its strategy, or the shape of the block.
        inside: `C1`, which every answer keeps exactly; or a function such as `EntropicSimplex`, a cost of its own.
        meets: `C2`, kept at convergence; None for no more constraints.

    Raises:
        TypeError: a term is of another kind.

    Example:
        >>> import implicit_l2o as il2o
        >>> from implicit_l2o.games import Player
        >>> Player(3, il2o.Simplex()).size
        3
    """

    size: int | tuple[int, ...]
    inside: AbstractProximable
    meets: AbstractProximable | None = field(default=None)

    def __post_init__(self) -> None:
        for name, term in (("inside", self.inside), ("meets", self.meets)):
            if term is not None and not isinstance(term, AbstractProximable):
                raise TypeError(f"Player.{name} must be a set or a proximable function; got {type(term).__name__}.")


def game(F: AbstractMonotone, players: Sequence[Player]) -> Problem:
    """The variational inequality of a game as the core's `Problem`, on the players' strategies joined in their order.

    Args:
        F: the pseudo-gradient, monotone, on the joined strategies.
        players: at least one.

    Returns:
        `F`, with `g` the product of the players' `inside` and, where a player has one, `h` that of their `meets`.

    Raises:
        ValueError: there is no player.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.games import Player, game, splitting_of
        >>> pennies = il2o.BilinearGame(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        >>> problem = game(pennies, [Player(2, il2o.Simplex()), Player(2, il2o.Simplex())])
        >>> il2o.solve(splitting_of(problem), torch.tensor([[0.8, 0.2, 0.6, 0.4]])).x.round(decimals=2)
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    if not players:
        raise ValueError("a game needs at least one player; got players=().")
    sizes = tuple(player.size for player in players)
    g = _product([player.inside for player in players], sizes)
    if all(player.meets is None for player in players):
        return Problem(F=F, g=g)
    return Problem(F=F, g=g, h=_product([Free() if p.meets is None else p.meets for p in players], sizes))


def splitting_of(problem: Problem, *, step: Step = "auto") -> AbstractSplitting:
    """A splitting that the problem's `F` allows.

    `ForwardBackward` or, with an `h`, `DavisYin` where `F` states a cocoercivity constant; else `ForwardBackwardForward` or
    `CombettesPesquet`, which need a Lipschitz constant only.

    Args:
        problem: without `K`, `l`.
        step: of the splitting.

    Raises:
        ValueError: see the splittings.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.games import splitting_of
        >>> type(splitting_of(il2o.Problem(F=il2o.BilinearGame(torch.eye(2)), g=il2o.Box(0.0, 1.0)))).__name__
        'ForwardBackwardForward'
    """
    cocoercive = problem.F is None or problem.F.cocoercivity is not None
    if problem.h is None:
        return (ForwardBackward if cocoercive else ForwardBackwardForward)(problem, step=step)
    return DavisYin(problem, step=step) if cocoercive else CombettesPesquet(problem, step=step)


def natural_residual(problem: Problem, x: Float[Tensor, "B *shape"], *, step: float = 1.0) -> Float[Tensor, " B"]:
    """`|x - prox_{step g}(x - step F(x))|`, Euclidean, per sample: zero exactly at the solutions, where there is no `h`.

    Args:
        problem: `F` and `g`; no `h`, `K`, `l`.
        x: the points.
        step: positive.

    Raises:
        ValueError: the problem has other terms, or the step is not positive.

    Source: Facchinei and Pang (2003), proposition 1.5.8.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.games import natural_residual
        >>> problem = il2o.Problem(F=il2o.QuadraticCost(linear=torch.ones(2), diagonal=1.0), g=il2o.Box(lower=0.0))
        >>> natural_residual(problem, torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
        tensor([0., 3.])
    """
    if problem.h is not None or problem.K is not None:
        raise ValueError("natural_residual takes F and g alone: with h the prox of the sum is not known.")
    if not 0 < step < math.inf:
        raise ValueError(f"natural_residual needs 0 < step < inf; got step={step}.")
    y = x if problem.F is None else x - step * problem.F.apply(x)
    return _batch.norm(x - (y if problem.g is None else problem.g.prox(y, step)))


def _product(terms: list[AbstractProximable], sizes: tuple[int | tuple[int, ...], ...]) -> AbstractProximable:
    sets = [term for term in terms if isinstance(term, AbstractSet)]
    return ProductSet(tuple(sets), sizes) if len(sets) == len(terms) else SeparableSum(tuple(terms), sizes)
