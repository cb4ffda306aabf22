"""Two-player zero-sum matrix games, with or without entropy, and how far a pair of strategies is from equilibrium."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import MATRIX, Batched
from implicit_l2o.games.variational_inequality import Player, game
from implicit_l2o.operators.bilinear_game import BilinearGame
from implicit_l2o.operators.entropic_simplex import EntropicSimplex
from implicit_l2o.operators.simplex import Simplex
from implicit_l2o.problem import Problem


@final
@dataclass(frozen=True, eq=False)
class MatrixGame(Batched):
    """`min_u max_v u.A v + t sum u log u - t sum v log v` over two simplices; `t = 0` is the game without entropy.

    With entropy the equilibrium is unique: it is the quantal response equilibrium
    (`quantal_response_equilibrium`). Strategies are joined, `x = (u, v)`.

    Args:
        payoff: `A`, what the first player pays the second, `(m, n)` shared or `(B, m, n)`.
        temperature: `t >= 0`, of both players.

    Raises:
        ValueError: a negative temperature, or a payoff with another number of dimensions.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.games import MatrixGame
        >>> game = MatrixGame(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), temperature=0.5)
        >>> T = il2o.ForwardBackwardForward(game.problem())
        >>> x = il2o.solve(T, torch.full((1, 4), 0.5)).x
        >>> bool(game.gap(x) < 1e-3), bool(game.exploitability(x) > 0)
        (True, True)
    """

    payoff: Tensor = field(metadata=MATRIX)
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if self.payoff.ndim not in (2, 3):
            raise ValueError(f"MatrixGame.payoff must be (m, n) or (B, m, n); got {tuple(self.payoff.shape)}.")
        if not self.temperature >= 0:
            raise ValueError(f"MatrixGame needs temperature >= 0; got temperature={self.temperature}.")

    @property
    def sizes(self) -> tuple[int, int]:
        """How many actions the two players have."""
        return self.payoff.shape[-2], self.payoff.shape[-1]

    def problem(self) -> Problem:
        """The variational inequality: the bilinear part as `F`, and the simplices, with their entropy, as `g`."""
        own = EntropicSimplex(self.temperature) if self.temperature > 0 else Simplex()
        return game(BilinearGame(self.payoff), [Player(size, own) for size in self.sizes])

    def exploitability(self, x: Float[Tensor, "B m_plus_n"]) -> Float[Tensor, " B"]:
        """`max_v' u.A v' - min_u' u'.A v`: what the players together can gain alone, entropy not counted; >= 0."""
        pays, earns = self._payments(x)
        return earns.amax(-1) - pays.amin(-1)

    def gap(self, x: Float[Tensor, "B m_plus_n"]) -> Float[Tensor, " B"]:
        """The same with entropy: `t lse(A^T u / t) + t lse(-A v / t) + t sum u log u + t sum v log v`.

        It is >= 0 and zero exactly at the equilibrium, and bounds the distance to it: the value of a game with entropy is
        strongly convex in `u` and concave in `v`, so `|x - x*|_1^2 <= 4 gap / t` (Pinsker's inequality for each player,
        the two joined by Cauchy and Schwarz). Without entropy it is the exploitability.
        """
        if self.temperature == 0:
            return self.exploitability(x)
        t = self.temperature
        pays, earns = self._payments(x)
        entropy = torch.special.entr(_batch.flatten(x)).sum(-1)
        gap = t * (torch.logsumexp(earns / t, -1) + torch.logsumexp(-pays / t, -1) - entropy)
        return gap.clamp(min=0)

    def _payments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`A v`, what each action of the first player costs, and `A^T u`, what each of the second earns."""
        slope = BilinearGame(self.payoff).apply(_batch.flatten(x))
        pays, minus_earns = slope.split(self.sizes, -1)
        return pays, -minus_earns
