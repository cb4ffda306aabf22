"""From a context `d` to the equilibrium of a game nobody wrote down: models with a solve in them.

1. `PayoffModel`: a network predicts the payoffs `B(d)`, and the answer is the equilibrium of that game,
   `u = argmin <u, B v> + t sum u log u`, `v = argmax`, by Tseng's splitting with the entropic prox. The bilinear part is
   not cocoercive, so `ForwardBackward` would refuse it.
2. `FixedPointModel`: a network is the pseudo-gradient `F(x; d)` itself, as in the fixed point networks of Heaton et al.
   (2021): either theirs, whose convergence nothing ensures, or one that is cocoercive for all weights.
"""

from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.data.matrix_games import CONTEXT, antisymmetric
from implicit_l2o.games import MatrixGame, quantal_response_equilibrium
from implicit_l2o.networks import MLP, CocoerciveNet, NonexpansiveNet

TOLERANCE = 1e-6  # of every solve, Euclidean


def payoff_network(actions: int, hidden: int = 0) -> nn.Module:
    """`d -> ` the payoffs above the diagonal, float64; small at first, so that the first answers are far from pure.

    Args:
        actions: `n`.
        hidden: width of a hidden layer; 0 for a linear map, to which the law of these games belongs.
    """
    entries = actions * (actions - 1) // 2
    last = nn.Linear(hidden or CONTEXT, entries)
    nn.init.normal_(last.weight, std=0.1)
    nn.init.zeros_(last.bias)
    network = nn.Sequential(nn.Linear(CONTEXT, hidden), nn.LeakyReLU(0.1), last) if hidden else last
    return network.double()


@final
class PayoffModel(nn.Module):
    """The equilibrium of predicted payoffs, exact and then verified by the splitting.

    With entropy the solve starts from Newton's equilibrium, so it ends after a few applications of `T` that measure the
    residual; without, it starts from the uniform strategies.

    Args:
        network: `d ->` the payoffs above the diagonal.
        actions: `n`.
        temperature: of both players' entropy; 0 for a game without.
        backward: None takes `JFB()`.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.matrix_games.model import PayoffModel, payoff_network
        >>> answer = PayoffModel(payoff_network(3), 3)(torch.rand(2, 3).double())
        >>> answer.x.shape, bool(answer.status.eq(1).all())
        (torch.Size([2, 6]), True)
    """

    def __init__(
        self,
        network: nn.Module,
        actions: int,
        *,
        temperature: float = 1.0,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.actions = actions
        self.temperature = temperature
        self.backward = backward

    def payoff(self, d: Float[Tensor, "B 3"]) -> Float[Tensor, "B n n"]:
        """The predicted payoffs."""
        return antisymmetric(self.network(d), self.actions)

    def forward(self, d: Float[Tensor, "B 3"]) -> il2o.Inference:
        """The inference, its problem the predicted game."""
        return self.solve(d, self.payoff(d))

    def solve(self, d: Tensor, payoff: Float[Tensor, "B n n"]) -> il2o.Inference:
        """The inference for given payoffs."""
        game = MatrixGame(payoff, self.temperature)
        T = il2o.ForwardBackwardForward(game.problem())
        if self.temperature > 0:
            start = quantal_response_equilibrium(payoff.detach(), temperature=self.temperature, tolerance=1e-9).x
        else:
            start = payoff.new_full((len(payoff), 2 * self.actions), 1 / self.actions)
        # Without entropy a few games, whose equilibria nearly change their support, take many steps; the rest is done then.
        stopping = il2o.Stopping(TOLERANCE, 0.0, 50_000, check_every=1 if self.temperature > 0 else 10)
        solution = il2o.solve(
            T, start, solver=il2o.KrasnoselskiiMann(stopping), backward=self.backward, on_failure="ignore"
        )
        return il2o.Inference.of(solution, problem=T.problem, data=d)


@final
class FixedPointModel(nn.Module):
    """A learned pseudo-gradient on the product of two simplices: `x = P(x - F(x; d))`, or the prox of the entropy for `P`.

    Args:
        actions: `n`.
        form: `"published"`: `F(x; d) = A (x + Q(d)) + a + x`, a linear layer each for `A` and `Q`, and projections; its
            iteration need not converge. `"cocoercive"`: a `CocoerciveNet` and the entropy in `g`, whose steps are known
            to be safe.
        hidden: width of the cocoercive network.
        contraction: of it.
    """

    def __init__(
        self,
        actions: int,
        *,
        form: Literal["published", "cocoercive"] = "cocoercive",
        hidden: int = 64,
        contraction: float = 0.7,
    ) -> None:
        super().__init__()
        if form not in ("published", "cocoercive"):
            raise ValueError(f'FixedPointModel.form must be "published" or "cocoercive"; got {form!r}.')
        self.form = form
        self.actions = actions
        size = 2 * actions
        if form == "published":
            self.context, self.map = nn.Linear(CONTEXT, size).double(), nn.Linear(size, size).double()
            sets = il2o.ProductSet((il2o.Simplex(), il2o.Simplex()), sizes=(actions, actions))
            self.g: il2o.AbstractProximable = sets
        else:
            self.context = MLP((CONTEXT, hidden, hidden)).double()
            inner = NonexpansiveNet((size, hidden, size), context=hidden)
            self.map = CocoerciveNet(inner, contraction=contraction).double()
            entropy = il2o.EntropicSimplex()
            self.g = il2o.SeparableSum((entropy, entropy), sizes=(actions, actions))
        stopping = il2o.Stopping(TOLERANCE, 0.0, 1000, check_every=2)
        self.solver = il2o.Anderson(stopping) if form == "published" else il2o.KrasnoselskiiMann(stopping)

    def forward(self, d: Float[Tensor, "B 3"]) -> il2o.Inference:
        """The inference."""
        start = d.new_full((len(d), 2 * self.actions), 1 / self.actions)
        if isinstance(self.map, CocoerciveNet):
            game = self.map.condition(self.context(d))
            # In the middle of what the theorem allows, 2 / (scale (1 + c)); there the map contracts by c.
            step = 1 / game.scale.detach() if isinstance(game.scale, Tensor) else 1 / game.scale
            T = il2o.ForwardBackward(il2o.Problem(F=game, g=self.g), step=step)
            solution = il2o.solve(T, start, solver=self.solver, on_failure="ignore")
            return il2o.Inference.of(solution, problem=T.problem, data=d)
        T = _Published(F.leaky_relu(self.context(d), 0.1), self.map, self.g)
        point = il2o.fixed_point(T, start, solver=self.solver, on_failure="ignore")
        return il2o.Inference.of(point, data=d)


class _Published:
    """`T(x) = P(x - F(x)) = P(-(A (x + q) + a))`; no splitting, since nothing is known of `F`."""

    def __init__(self, q: Tensor, linear: nn.Module, g: il2o.AbstractProximable) -> None:
        self.q, self.linear, self.g = q, linear, g

    def __call__(self, x: Tensor) -> Tensor:
        return self.g.prox(-self.linear(x + self.q), 1.0)

    def restrict(self, index: Tensor) -> "_Published":
        return _Published(self.q[index], self.linear, self.g)


@final
class SoftmaxNetwork(nn.Module):
    """The black box: a network with one softmax for each player.

    Args:
        actions: `n`.
        hidden: width of its two hidden layers.
    """

    def __init__(self, actions: int, hidden: int = 64) -> None:
        super().__init__()
        self.actions = actions
        self.network = MLP((CONTEXT, hidden, hidden, 2 * actions)).double()

    def forward(self, d: Float[Tensor, "B 3"]) -> il2o.Inference:
        """The answers; nothing is solved."""
        logits = self.network(d).unflatten(1, (2, self.actions))
        return il2o.Inference(x=torch.softmax(logits, -1).flatten(1), data=d)
