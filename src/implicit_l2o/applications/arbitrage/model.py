"""From observed reserves `d` to a trade: `argmax U(x, y) - |W (x - y)|^2 / 2` over what the pools accept, with slack.

`U = <p, y - x>` is known; learned are the risk `W`, one block a pool, and the slack, one number a pool, by which every mean
has to rise because the reserves are seen with noise. Both act on the problem, so every answer is an optimal trade of some
market, and its constraints can be read off.

Source: H. Heaton and S. Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), section on
cryptoasset trading.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage.execution import Market
from implicit_l2o.applications.arbitrage.sets import LostUtility, PoolLimits, Structure, TradeBalance
from implicit_l2o.data.pools import PoolNetwork

_FLOOR = 0.5  # added to the Lipschitz constant in the step: without risk the utility is linear, and any step is allowed
_STEP = 1.9  # of the 2 that the theorem allows
TYPICAL = 5e-4  # the volatility at which a conditioned slack is its first number; the mean of the published data
_MOST_SLACK = 0.5


class ArbitrageLayer(nn.Module):
    """Reserves in, optimal trades out: a Davis-Yin splitting run to its tolerance, in float64.

    The answer of an inference is `(B, 2, L)`, tendered and received amounts of tokens by place. The problem is solved in
    units of the observed reserves, where all its sets have the same scale.

    Args:
        network: of the pools.
        slack: at the start, of every pool, in (0, 0.5).
        risk: at the start, the diagonal of `W`, in `1 / sqrt(token)`; positive.
        volatility: let the slack depend on the observed volatility, `slack (volatility / 0.0005)^power` with a learned
            power for each pool.
        tolerance: of the solve, on the residual, in units of the reserves.
        max_steps: of the solve.
        backward: None takes `Implicit()`. The Jacobian-free gradient of a geometric pool's slack is zero, because one
            application of the splitting moves the auxiliary `z` alone.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.arbitrage import ArbitrageLayer
        >>> from implicit_l2o.data.arbitrage import draw, published_network
        >>> layer = ArbitrageLayer(published_network())
        >>> trade = layer(draw(2).observed)
        >>> trade.shape, bool((trade >= 0).all()), sum(parameter.numel() for parameter in layer.parameters())
        (torch.Size([2, 2, 11]), True, 30)
    """

    membership: Tensor
    is_geometric: Tensor
    weights: Tensor
    fees: Tensor
    prices: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        network: PoolNetwork,
        *,
        slack: float = 2e-3,
        risk: float = 0.02,
        volatility: bool = False,
        tolerance: float = 1e-6,
        max_steps: int = 3000,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        super().__init__()
        if not 0 < slack < _MOST_SLACK:
            raise ValueError(f"ArbitrageLayer needs 0 < slack < {_MOST_SLACK}; got slack={slack}.")
        for name, value in (("risk", risk), ("tolerance", tolerance)):
            if not 0 < value < math.inf:
                raise ValueError(f"ArbitrageLayer needs {name} > 0; got {name}={value}.")
        self.network = network
        self.backward = il2o.Implicit() if backward is None else backward
        self.solver = il2o.Anderson(il2o.Stopping(tolerance, 0.0, max_steps, check_every=10), memory=8)
        market = Market.of(network)
        structure = market.structure
        constants = {
            "membership": structure.membership,
            "is_geometric": structure.geometric,
            "weights": structure.weights,
            "fees": structure.fees,
            "prices": market.prices,
        }
        rows, columns = (structure.membership.mT @ structure.membership > 0.5).nonzero(as_tuple=True)
        for name, value in (*constants.items(), ("rows", rows), ("columns", columns)):
            self.register_buffer(name, value, persistent=False)
        self.unit = risk
        self.risk = nn.Parameter((rows == columns).double())
        self.log_slack = nn.Parameter(torch.full((len(network.pools),), math.log(slack), dtype=torch.float64))
        self.power = nn.Parameter(torch.zeros(len(network.pools), dtype=torch.float64)) if volatility else None

    @property
    def market(self) -> Market:
        """The network in tensors."""
        return Market(Structure(self.membership, self.is_geometric, self.weights, self.fees), self.prices)

    def W(self) -> Float[Tensor, "L L"]:
        """The learned risk, one block a pool; the parameter is in units of its start."""
        size = len(self.prices)
        return self.unit * self.risk.new_zeros(size, size).index_put((self.rows, self.columns), self.risk)

    def slack(self, volatility: Float[Tensor, "B 1"] | None = None) -> Float[Tensor, "*B J"]:
        """The learned slack, of every sample where it is conditioned."""
        log = self.log_slack
        if self.power is not None:
            if volatility is None:
                raise ValueError("this layer's slack depends on the volatility: give it, (B, 1), relative.")
            log = log + self.power * (volatility.double().clamp_min(1e-2 * TYPICAL) / TYPICAL).log()
        return log.clamp_max(math.log(_MOST_SLACK)).exp()

    def splitting(
        self, reserves: Float[Tensor, "B L"], volatility: Float[Tensor, "B 1"] | None = None
    ) -> il2o.DavisYin:
        """The problem of a batch and its splitting; the step follows from the Lipschitz constant of the learned utility."""
        slack, structure = self.slack(volatility), self.market.structure
        unit = (self.prices * reserves).mean(1)
        lost = LostUtility(self.prices, reserves, self.W(), unit)
        problem = il2o.Problem(F=lost, g=PoolLimits(structure, reserves, slack), h=TradeBalance(structure, slack))
        return il2o.DavisYin(problem, step=_STEP / (lost.lipschitz + _FLOOR))

    def inference(
        self,
        reserves: Float[Tensor, "B L"],
        volatility: Float[Tensor, "B 1"] | None = None,
    ) -> il2o.Inference:
        """The trades with their solve; `data` are the reserves. Gradients follow the grad mode.

        Args:
            reserves: as observed, positive.
            volatility: of the observation, relative; for a layer that is conditioned on it.

        Raises:
            ValueError: a reserve is not positive and finite, or the shape is not that of the network.
        """
        self.network.check_reserves(reserves)
        if volatility is not None and not bool((torch.isfinite(volatility) & (volatility >= 0)).all()):
            raise ValueError(
                f"a volatility must be finite and not negative; the smallest is {float(volatility.min())}."
            )
        d = reserves.double()
        splitting = self.splitting(d, volatility)
        solution = il2o.solve(
            splitting,
            d.new_zeros(len(d), 4 * d.shape[1]),
            solver=self.solver,
            backward=self.backward,
            on_failure="ignore",
        )
        _, tendered, received, _ = solution.x.chunk(4, dim=1)
        trade = torch.stack([d * tendered, d * received], dim=1)
        return il2o.Inference(
            x=trade,
            z=solution.z,
            status=solution.status,
            residual=solution.residual,
            steps=solution.steps,
            data=reserves,
        )

    def forward(
        self, reserves: Float[Tensor, "B L"], volatility: Float[Tensor, "B 1"] | None = None
    ) -> Float[Tensor, "B 2 L"]:
        """The trades alone."""
        return self.inference(reserves, volatility).x
