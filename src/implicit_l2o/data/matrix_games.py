"""Zero-sum games whose payoffs depend on a context, with their exact equilibria: rock, paper, scissors of n actions.

Source of the law: Heaton, McKenzie, Li, Fung, Osher, Yin, "Learn to Predict Equilibria via Fixed Point Networks" (2021),
section 6.1: an antisymmetric payoff whose entries above the diagonal are `W d`, with `W` uniform on [0, 10] and contexts
`d` uniform on [0, 1]^3. There the equilibria came from a few thousand small gradient steps; here they are exact.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.games import quantal_response_equilibrium

Kind: TypeAlias = Literal["entropic", "cyclic"]

CONTEXT = 3  # length of a context


def antisymmetric(upper: Float[Tensor, "B m"], actions: int) -> Float[Tensor, "B n n"]:
    """The antisymmetric matrices with the given entries above the diagonal, row by row.

    Args:
        upper: `m = n (n - 1) / 2` entries.
        actions: `n`.

    Raises:
        ValueError: another number of entries.

    Example:
        >>> import torch
        >>> from implicit_l2o.data.matrix_games import antisymmetric
        >>> antisymmetric(torch.tensor([[1.0, 2.0, 3.0]]), 3)[0]
        tensor([[ 0.,  1.,  2.],
                [-1.,  0.,  3.],
                [-2., -3.,  0.]])
    """
    if upper.shape[1] != actions * (actions - 1) // 2:
        raise ValueError(
            f"{actions} actions have {actions * (actions - 1) // 2} entries above the diagonal; got {upper.shape[1]}."
        )
    i, j = torch.triu_indices(actions, actions, 1, device=upper.device)
    flat = upper.new_zeros(len(upper), actions * actions).index_copy(1, i * actions + j, upper)
    matrix = flat.view(-1, actions, actions)
    return matrix - matrix.mT


@dataclass(frozen=True)
class PayoffLaw:
    """How payoffs follow from contexts: `B(d)` antisymmetric, linear in `d`.

    Args:
        actions: `n`, at least 2.
        kind: `"entropic"`: entries above the diagonal are `W d`, and players have entropy of temperature 1, so the
            equilibrium is a quantal response. `"cyclic"`: rock, paper, scissors without entropy; each action beats the
            next by an entry of `W d`, so all three are played.
        seed: of `W`.

    Raises:
        ValueError: fewer than 2 actions, or another number than 3 for `"cyclic"`; an unknown kind.

    Example:
        >>> from implicit_l2o.data.matrix_games import PayoffLaw
        >>> games = PayoffLaw(5, seed=0).draw(2, seed=1)
        >>> games.payoff.shape, bool((games.u.sum(1) - 1).abs().max() < 1e-12)
        (torch.Size([2, 5, 5]), True)
    """

    actions: int = 5
    kind: Kind = "entropic"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("entropic", "cyclic"):
            raise ValueError(f'PayoffLaw.kind must be "entropic" or "cyclic"; got {self.kind!r}.')
        if self.actions < 2 or (self.kind == "cyclic" and self.actions != 3):
            permitted = "actions = 3" if self.kind == "cyclic" else "actions >= 2"
            raise ValueError(f"PayoffLaw of kind {self.kind} needs {permitted}; got actions={self.actions}.")

    @property
    def temperature(self) -> float:
        """Of both players' entropy."""
        return 1.0 if self.kind == "entropic" else 0.0

    @cached_property
    def weight(self) -> Float[Tensor, "m 3"]:
        """`W`."""
        generator = torch.Generator().manual_seed(self.seed)
        entries = self.actions * (self.actions - 1) // 2
        W = 10 * torch.rand(entries, CONTEXT, generator=generator, dtype=torch.float64)
        # Rock loses to paper and beats scissors, paper loses to scissors: signs -, +, - above the diagonal.
        return W * torch.tensor([[-1.0], [1.0], [-1.0]], dtype=torch.float64) if self.kind == "cyclic" else W

    def payoff(self, contexts: Float[Tensor, "B 3"]) -> Float[Tensor, "B n n"]:
        """`B(d)`: what the first player pays the second."""
        return antisymmetric(contexts @ self.weight.mT, self.actions)

    def draw(self, count: int, *, seed: int) -> "Games":
        """Contexts with their games and equilibria, exact to a residual of 1e-10.

        Args:
            count: at least 1.
            seed: of the contexts.

        Raises:
            ValueError: no context.
            RuntimeError: an equilibrium was not found to 1e-10.
        """
        if count < 1:
            raise ValueError(f"PayoffLaw.draw needs count >= 1; got count={count}.")
        generator = torch.Generator().manual_seed(seed)
        contexts = torch.rand(count, CONTEXT, generator=generator, dtype=torch.float64)
        return self.solve(contexts)

    def solve(self, contexts: Float[Tensor, "B 3"]) -> "Games":
        """The games of given contexts, in float64."""
        payoff = self.payoff(contexts)
        if self.kind == "cyclic":
            a, b, c = -payoff[:, 0, 1], payoff[:, 0, 2], -payoff[:, 1, 2]
            u = torch.stack([c, b, a], 1)  # B u = 0
            u = u / u.sum(1, keepdim=True)
            residual = (payoff @ u[..., None])[..., 0].norm(dim=1)
            return Games(contexts, payoff, u, u, residual)
        parts = [quantal_response_equilibrium(part) for part in payoff.split(250)]  # of few megabytes each
        residual = torch.cat([part.residual for part in parts])
        if not bool((residual <= 1e-10).all()):
            raise RuntimeError(f"an equilibrium was found to a residual of {float(residual.max()):.1e} only.")
        u, v = (torch.cat([getattr(part, name) for part in parts]) for name in ("u", "v"))
        return Games(contexts, payoff, u, v, residual)


@dataclass(frozen=True, eq=False)
class Games:
    """Contexts with what they imply, float64.

    Attributes:
        contexts: `(B, 3)`.
        payoff: `(B, n, n)` what the first player pays the second; a model may not read it.
        u: `(B, n)` the first player's equilibrium strategy.
        v: `(B, n)` the second's.
        residual: `(B,)` how far the pair is from answering each other, Euclidean.
    """

    contexts: Tensor
    payoff: Tensor
    u: Tensor
    v: Tensor
    residual: Tensor

    @property
    def x(self) -> Float[Tensor, "B both"]:
        """Both strategies joined."""
        return torch.cat([self.u, self.v], 1)
