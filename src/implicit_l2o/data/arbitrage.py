"""Reserves of market makers, observed with noise: the published recipe of the arbitrage experiment, draw by draw.

Source: H. Heaton and S. Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), section on
cryptoasset trading; the order of the random draws is that of its published notebook.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.data.pools import Pool, PoolNetwork

# How much of its first token a pool holds on average.
SCALES = (50.0, 30.0, 23.5, 35.7, 46.9)
SPREAD = 0.1  # of token values and of reserves, relative
MOST_NOISE = 1e-3  # the largest standard deviation of an observation, relative


def published_network() -> PoolNetwork:
    """Five pools of three tokens: four geometric, one arithmetic.

    Example:
        >>> from implicit_l2o.data.arbitrage import published_network
        >>> published_network().sizes
        (3, 2, 2, 2, 2)
    """
    return PoolNetwork(
        {"token 1": 1.0, "token 2": 1.9, "token 3": 0.5},
        (
            Pool("geometric", ("token 1", "token 2", "token 3"), (0.2, 0.3, 0.5), 0.98),
            Pool("geometric", ("token 1", "token 2"), (0.4, 0.6), 0.99),
            Pool("geometric", ("token 2", "token 3"), (0.5, 0.5), 0.98),
            Pool("geometric", ("token 1", "token 3"), (0.6, 0.4), 0.99),
            Pool("arithmetic", ("token 1", "token 3"), (0.6, 0.4), 0.98),
        ),
    )


@dataclass(frozen=True, eq=False)
class Snapshots:
    """Reserves as they are and as they were seen.

    Attributes:
        observed: `(N, L)` what a trader sees, `(1 + e) reserves`, `e ~ N(0, volatility^2)`.
        reserves: `(N, L)` what the pools hold when the trade arrives.
        volatility: `(N, 1)` the standard deviation of the observation, relative; the published model is not told it.
    """

    observed: Float[Tensor, "N L"]
    reserves: Float[Tensor, "N L"]
    volatility: Float[Tensor, "N 1"]

    def __len__(self) -> int:
        return self.observed.shape[0]

    def part(self, first: int, last: int) -> "Snapshots":
        """The samples `first` to `last - 1`."""
        return Snapshots(self.observed[first:last], self.reserves[first:last], self.volatility[first:last])


def draw(count: int, *, network: PoolNetwork | None = None, seed: int = 2022, shuffle: bool = True) -> Snapshots:
    """Reserves near the balance of each pool's own opinion of the prices, and their noisy observations; float32.

    Pool by pool, each sample draws token values `(1 + 0.1 N(0, 1)) price`, and place `t` of the pool then holds
    `w_t value_0 / (w_0 value_t) (1 + 0.1 N(0, 1)) scale`: at equality the pool's marginal prices are the values. So pools
    disagree with each other and with the trader. An observation is off by a relative error whose standard deviation is drawn
    per sample from `[0, 0.001]`.

    Args:
        count: samples.
        network: None takes the published one; another gets the scales of the published pools in turn.
        seed: of the data. The published data set is `draw(5500)`: 5,000 samples to learn from, then 500 test samples.
        shuffle: put the samples in a random order at the end, as the published split does.

    Raises:
        ValueError: `count` is below 1.

    Example:
        >>> from implicit_l2o.data.arbitrage import draw
        >>> snapshots = draw(4)
        >>> snapshots.observed.shape, bool((snapshots.reserves > 0).all())
        (torch.Size([4, 11]), True)
    """
    if count < 1:
        raise ValueError(f"draw needs count >= 1; got count={count}.")
    network = published_network() if network is None else network
    random = torch.Generator().manual_seed(seed)
    columns = []
    for j, pool in enumerate(network.pools):
        size = len(pool.tokens)
        price = torch.tensor([network.prices[token] for token in pool.tokens])
        # One by one, because PyTorch's generator gives other numbers when it is asked for many at once.
        change = torch.cat([torch.randn(1, generator=random) for _ in range(count * size)]).view(count, size)
        value = (1.0 + SPREAD * change) * price
        scale = SCALES[j % len(SCALES)]
        for t in range(size):
            held = (1.0 + SPREAD * torch.randn(count, generator=random)) * scale
            columns.append(pool.weights[t] * value[:, 0] * held / (pool.weights[0] * value[:, t]))
    reserves = torch.stack(columns, dim=1)
    volatility = MOST_NOISE * torch.rand(count, 1, generator=random)
    error = torch.normal(torch.zeros_like(reserves), volatility.expand_as(reserves).contiguous(), generator=random)
    observed = (1.0 + error) * reserves
    order = torch.randperm(count, generator=random) if shuffle else torch.arange(count)
    return Snapshots(observed[order], reserves[order], volatility[order])
