"""The optimal trade where reserves are as observed and risk costs nothing, in closed form up to one bisection a pool.

Pools share no constraint, so each is solved by itself. In a geometric pool the condition of optimality says what it holds
afterwards, up to one number `lambda` that the mean fixes: the median of `lambda w fee / p`, `lambda w / p` and what it
held. An arithmetic pool trades at one price until it is empty.

Source: G. Angeris et al., Constant function market makers (2022), section 3.2, for the conditions of optimality.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.applications.arbitrage.execution import Market

_BISECTIONS = 80
_RANGE = 60.0  # of ln lambda around that of the first place


@torch.no_grad()
def optimal_trade(
    market: Market, reserves: Float[Tensor, "B L"], slack: float | Float[Tensor, " J"] = 0.0
) -> Float[Tensor, "B 2 L"]:
    """`argmax <p, y - x>` over the trades that raise every mean by the slack, `(tendered, received)`.

    Args:
        market: the network.
        reserves: `d`, positive.
        slack: `(J,)` or one for all, in `[0, 1)`: each mean has to reach `1 + slack` times the present one (for an
            arithmetic pool: rise by `slack <w, d>`), and that share of every reserve is left in the pool.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.arbitrage.analytic import optimal_trade
        >>> from implicit_l2o.applications.arbitrage.execution import Market
        >>> from implicit_l2o.data.arbitrage import draw, published_network
        >>> market, seen = Market.of(published_network()), draw(3).observed.double()
        >>> bool((market.utility(optimal_trade(market, seen)) > 0).all())
        True
    """
    s = market.structure
    slack = torch.as_tensor(slack, dtype=reserves.dtype).expand(len(s.geometric))
    trade = torch.zeros(len(reserves), 2, reserves.shape[1], dtype=reserves.dtype)
    for j, geometric in enumerate(s.geometric.tolist()):
        at = (s.membership[j] > 0.5).nonzero()[:, 0]
        d, w, p, fee = reserves[:, at], s.weights[at], market.prices[at], float(s.fees[at[0]])
        change = _geometric(d, w, p, fee, slack[j]) if geometric else _arithmetic(d, w, p, fee, slack[j])
        trade[:, 0, at], trade[:, 1, at] = change.clamp_min(0) / fee, (-change).clamp_min(0)
    return trade


def _geometric(d: Tensor, w: Tensor, p: Tensor, fee: float, slack: Tensor) -> Tensor:
    """`v = q - d`: `q = lambda w fee / p` where that exceeds `d`, `lambda w / p` where that is less, else `d`."""
    target = (w * d.log()).sum(1, keepdim=True) + w.sum() * torch.log1p(slack)
    middle = (d * p / w).log().mean(1, keepdim=True)
    low, high = middle - _RANGE, middle + _RANGE
    for _ in range(_BISECTIONS):
        guess = (low + high) / 2
        short = (w * _held(guess.exp(), d, w, p, fee).log()).sum(1, keepdim=True) < target
        low, high = torch.where(short, guess, low), torch.where(short, high, guess)
    return _held(high.exp(), d, w, p, fee) - d


def _held(scale: Tensor, d: Tensor, w: Tensor, p: Tensor, fee: float) -> Tensor:
    return torch.maximum(scale * w * fee / p, torch.minimum(d, scale * w / p))


def _arithmetic(d: Tensor, w: Tensor, p: Tensor, fee: float, slack: Tensor) -> Tensor:
    """The token that is cheapest per weight is tendered; those that are worth more per weight are taken, what is allowed."""
    cost = p / (fee * w)
    tendered = int(cost.argmin())
    taken = (p / w > cost[tendered]) & (torch.arange(len(w)) != tendered)
    v = -(1 - slack) * d * taken
    needed = slack * (w * d).sum(1) - (w * v).sum(1)
    v[:, tendered] = needed / w[tendered]
    return v
