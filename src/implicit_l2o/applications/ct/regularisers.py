"""Three learned regularisers, from proven to merely trained: a convex potential, an averaged network, a free network.

Each gives the `F` of `0 in F(x) + N_C(x)`, `C` the box and the ball around the data. All have the pull
`strength (x - proposal)` towards what the context network proposes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o import DATA, SCALAR, AbstractMonotone, QuadraticCost, SmoothSum
from implicit_l2o.applications.ct.ridges import FilterBank, Ridges, clipped, normalised, transposed

_STRENGTH = 0.02  # of the pull at first
_LAYER_STEP = 1.9  # a step of `x - s grad f(x)` is nonexpansive up to 2
_OPEN = 1.0  # the weights start at sigmoid(1)
_MARGIN = 0.95  # the penalty asks for a little more than is needed, since it sees a lower estimate


class AbstractRegulariser(nn.Module, ABC):
    """Makes the learned `F` from what the context network says; `proven` tells whether its constants are theorems."""

    proven: bool

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.maps = maps
        self.log_strength = nn.Parameter(torch.tensor(_STRENGTH).log())

    @property
    def strength(self) -> Tensor:
        """Of the pull towards the proposal, positive."""
        return self.log_strength.exp()

    @abstractmethod
    def condition(self, proposal: Float[Tensor, "B 1 H W"], maps: Float[Tensor, "B maps H W"]) -> AbstractMonotone:
        """`F` for a batch."""

    def penalty(self, F: AbstractMonotone, x: Float[Tensor, "B 1 H W"]) -> Tensor:
        """What the training adds to the loss so that the constants that `F` states hold; 0 where they are proven."""
        return x.new_zeros(())


@final
class ConvexPotential(AbstractRegulariser):
    """`F = grad f`, `f(x; d) = sum_i w_i(d) huber((K x)_i) + strength / 2 |x - c(d)|^2`: convex for every `d`.

    So the reconstruction is the one minimiser of `f` over the box and the ball, and every splitting converges to it.

    Args:
        shape: largest image `(H, W)`.
        filters: of `K`.
        kernel_size: of the filters.
    """

    proven = True

    def __init__(self, shape: tuple[int, int], *, filters: int = 16, kernel_size: int = 5) -> None:
        super().__init__(filters)
        self.bank = FilterBank(shape, filters=filters, kernel_size=kernel_size)

    def condition(self, proposal: Float[Tensor, "B 1 H W"], maps: Float[Tensor, "B maps H W"]) -> SmoothSum:
        """`grad f`, with its value."""
        ridges = self.bank(torch.sigmoid(maps + _OPEN))
        pull = QuadraticCost(linear=-self.strength * proposal, diagonal=self.strength)
        return SmoothSum((ridges, pull))


@final
class AveragedNetwork(AbstractRegulariser):
    """`F(x) = x - N(x; d) + strength (x - c(d))` with `N` a composition of nonexpansive layers: monotone, no gradient.

    A layer is `x - 1.9 K^T (w(d) * clamp(K x, -t, t))`. The reconstruction is the one solution of a variational inequality
    over the box and the ball, and every splitting converges to it.

    Args:
        shape: largest image `(H, W)`.
        layers: in `N`.
        filters: of each layer.
        kernel_size: of the filters.
    """

    proven = True

    def __init__(self, shape: tuple[int, int], *, layers: int = 3, filters: int = 8, kernel_size: int = 5) -> None:
        super().__init__(layers * filters)
        self.filters = filters
        self.banks = nn.ModuleList(
            FilterBank(shape, filters=filters, kernel_size=kernel_size, threshold=0.01) for _ in range(layers)
        )

    def condition(self, proposal: Float[Tensor, "B 1 H W"], maps: Float[Tensor, "B maps H W"]) -> "AveragedResidual":
        """The monotone map."""
        weights = torch.sigmoid(maps + _OPEN).split(self.filters, dim=1)
        layers = tuple(bank(weight) for bank, weight in zip(self.banks, weights, strict=True))
        return AveragedResidual(layers, proposal, self.strength)


@final
@dataclass(frozen=True, eq=False)
class AveragedResidual(AbstractMonotone):
    """`F(x) = x - N(x) + strength (x - centre)`, monotone and `1 / (2 + strength)`-cocoercive.

    `x - N(x)` is `1/2`-cocoercive for `N` nonexpansive (Bauschke and Combettes 2017, proposition 4.11), `strength (x - c)`
    is `1/strength`-cocoercive, and the reciprocals add.
    """

    layers: tuple[Ridges, ...]
    centre: Tensor = field(metadata=DATA)
    strength: Tensor = field(metadata=SCALAR)

    @property
    def lipschitz(self) -> Tensor:
        """`2 + strength`."""
        return 2 + self.strength

    @property
    def cocoercivity(self) -> Tensor:
        """`1 / (2 + strength)`."""
        return 1 / (2 + self.strength)

    def network(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """`N(x)`."""
        for layer in self.layers:
            x = torch.sub(x, layer.apply(x), alpha=_LAYER_STEP)
        return x

    def apply(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """`F(x)`."""
        return x - self.network(x) + self.strength * (x - self.centre)


@final
class FreeNetwork(AbstractRegulariser):
    """`F(x) = V (w(d) * clamp(K x + b(d), -t, t)) + strength (x - c(d))` with free filters `V`, `K`: nothing is proven.

    It starts as the convex potential. In training `penalty` asks for what the splitting needs, near the solution; whether
    an inference converged is measured and certified for each image.

    Args:
        shape: largest image `(H, W)`.
        filters: of `K` and of `V`.
        kernel_size: of the filters.
        lipschitz: what `F` states, and `penalty` asks for.

    Raises:
        ValueError: `lipschitz` is not positive.
    """

    proven = False

    def __init__(
        self, shape: tuple[int, int], *, filters: int = 24, kernel_size: int = 5, lipschitz: float = 2.0
    ) -> None:
        if not lipschitz > 0:
            raise ValueError(f"FreeNetwork needs lipschitz > 0; got lipschitz={lipschitz}.")
        super().__init__(2 * filters)
        bank = FilterBank(shape, filters=filters, kernel_size=kernel_size)
        start = normalised(bank.kernels.detach(), shape)
        self.inner, self.outer = nn.Parameter(start), nn.Parameter(start.clone())
        self.log_thresholds = bank.log_thresholds
        self.stated = lipschitz

    def condition(self, proposal: Float[Tensor, "B 1 H W"], maps: Float[Tensor, "B maps H W"]) -> "FreeResidual":
        """The map, with its stated constants."""
        gates, shifts = maps.chunk(2, dim=1)
        thresholds = self.log_thresholds.exp()
        return FreeResidual(
            self.inner,
            self.outer,
            torch.sigmoid(gates + _OPEN),
            thresholds * shifts,
            thresholds,
            proposal,
            self.strength,
            self.stated,
        )

    def penalty(self, F: AbstractMonotone, x: Float[Tensor, "B 1 H W"]) -> Tensor:
        """The mean over the batch of `max(0, |J - L/2| / (L/2) - 1)^2`, `J = dF(x)` and `L` the stated constant.

        A `J` with `|J - L/2| <= L/2` is monotone and `1/L`-cocoercive, which is what the splitting asks for. The norm is
        estimated from below, by power iteration.
        """
        assert isinstance(F, FreeResidual)
        size = F.excess(x.detach(), iterations=4)
        return (size - _MARGIN).clamp_min(0).square().mean()


@final
@dataclass(frozen=True, eq=False)
class FreeResidual(AbstractMonotone):
    """`F(x) = V (w * clamp(K x + b, -t, t)) + strength (x - centre)`; its constants are stated, not proven."""

    inner: Tensor
    outer: Tensor
    weights: Tensor = field(metadata=DATA)
    shifts: Tensor = field(metadata=DATA)
    thresholds: Tensor
    centre: Tensor = field(metadata=DATA)
    strength: Tensor = field(metadata=SCALAR)
    stated: float

    @property
    def lipschitz(self) -> float:
        """As stated."""
        return self.stated

    @property
    def cocoercivity(self) -> float:
        """As stated."""
        return 1 / self.stated

    def apply(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """`F(x)`."""
        hidden = clipped(F.conv2d(x, self.inner, padding="same").add_(self.shifts), self.thresholds)
        return transposed(hidden.mul_(self.weights), self.outer) + self.strength * (x - self.centre)

    def excess(self, x: Float[Tensor, "B 1 H W"], *, iterations: int) -> Float[Tensor, " B"]:
        """`|J - L/2| / (L/2)` for `J = dF(x)`, per sample and from below; at most 1 is what the splitting asks for."""
        with torch.no_grad():
            inside = (F.conv2d(x, self.inner, padding="same") + self.shifts).abs() <= self.thresholds
        slopes, half = self.weights * inside, self.stated / 2

        def forth(v: Tensor) -> Tensor:
            hidden = slopes * F.conv2d(v, self.inner, padding="same")
            return transposed(hidden, self.outer) + (self.strength - half) * v

        def back(v: Tensor) -> Tensor:
            hidden = slopes * F.conv2d(v, self.outer, padding="same")
            return transposed(hidden, self.inner) + (self.strength - half) * v

        with torch.no_grad():
            v = torch.randn_like(x)
            for _ in range(iterations):
                v = back(forth(v))
                v = v / v.flatten(1).norm(dim=1)[:, None, None, None].clamp_min(torch.finfo(v.dtype).tiny)
        return forth(v).flatten(1).norm(dim=1) / half
