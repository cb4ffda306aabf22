"""From a map to a path: `x(d) = argmin {w(d).x + gamma |x|^2 / 2 : A x = b, x >= 0}` over the flows between neighbours.

A network predicts a cost for every cell; an arc costs what the cell costs that it enters; the layer answers with a flow, and
how much of it enters a cell is the cell's occupancy, 1 on a path and 0 off it.

Source: D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with Quadratic
Regularization and Davis-Yin Splitting, TMLR (2024); the task and the residual network of Vlastelica et al., ICLR (2020).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.data.warcraft import CellGrid
from implicit_l2o.decoders import decide_finite

LEAST = 1e-2  # of a cost, after noise as well: an exact search needs costs that are not negative
_START = 0.54  # softplus of it is 1: costs start at about 1


@dataclass(frozen=True)
class AbstractNetworkSpec(ABC):
    """A cost network in a configuration: `build` makes its modules."""

    @abstractmethod
    def body(self, side: int) -> nn.Module:
        """From images `(B, 3, height, width)`, -1 to 1, to `(B, 1, side, side)`."""

    @final
    def build(self, side: int, *, level: float | None = None, seed: int | None = None) -> "CostNetwork":
        """The network, initialised by the seed alone.

        Args:
            side: cells along one side.
            level: see `CostNetwork`.
            seed: of the weights; PyTorch's own random state is left as it was. None takes the seed that PyTorch was given
                last, the run's, however much was drawn since: so a model and its baselines start from the same weights.
        """
        seed = torch.initial_seed() if seed is None else seed
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return CostNetwork(self.body(side), level=level)


@final
@dataclass(frozen=True)
class PatchNetwork(AbstractNetworkSpec):
    """Looks at every tile of 8x8 pixels together with the eight around it; two or three million multiplications a map.

    Args:
        width: channels.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.warcraft import PatchNetwork
        >>> PatchNetwork(width=8).build(12)(torch.zeros(1, 96, 96, 3, dtype=torch.uint8)).shape
        torch.Size([1, 12, 12])
    """

    width: int = 32

    def body(self, side: int) -> nn.Module:
        """See the base."""
        w = self.width
        return nn.Sequential(
            *(nn.Conv2d(3, w, 4, stride=4), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(w, 2 * w, 2, stride=2), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(2 * w, w, 3, padding=1), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(w, w, 1), nn.LeakyReLU(0.1)),
            nn.Conv2d(w, 1, 1),
        )


@final
@dataclass(frozen=True)
class ResNetStem(AbstractNetworkSpec):
    """The published network: ResNet18 up to its first stage, a 1x1 convolution, and a maximum over each cell.

    Source: K. He, X. Zhang, S. Ren and J. Sun, Deep Residual Learning for Image Recognition, CVPR (2016), table 1.

    Args:
        width: channels; 64 is the published one.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.warcraft import ResNetStem
        >>> ResNetStem(width=8).build(12)(torch.zeros(1, 96, 96, 3, dtype=torch.uint8)).shape
        torch.Size([1, 12, 12])
    """

    width: int = 64

    def body(self, side: int) -> nn.Module:
        """See the base."""
        w = self.width
        return nn.Sequential(
            *(nn.Conv2d(3, w, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(w), nn.ReLU()),
            nn.MaxPool2d(3, stride=2, padding=1),
            *(_ResidualBlock(w), _ResidualBlock(w)),
            nn.Conv2d(w, 1, 1),
            nn.AdaptiveMaxPool2d(side),
        )


class _ResidualBlock(nn.Module):
    """`relu(x + f(x))`, `f` two 3x3 convolutions with batch normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


class CostNetwork(nn.Module):
    """`d -> w`: a positive cost for every cell of a map.

    Args:
        body: see `AbstractNetworkSpec.body`.
        level: the mean cost of every map; the network then says how costs compare. None lets it learn how large they are.
    """

    def __init__(self, body: nn.Module, *, level: float | None = None) -> None:
        super().__init__()
        self.body = body
        self.level = level

    def forward(self, images: UInt8[Tensor, "B height width 3"]) -> Float[Tensor, "B side side"]:
        """The costs."""
        x = images.permute(0, 3, 1, 2).to(next(self.body.parameters()).dtype) / 127.5 - 1.0
        costs = F.softplus(self.body(x).squeeze(1) + _START) + LEAST
        return costs if self.level is None else costs * (self.level / costs.mean((1, 2), keepdim=True))


def perturb(w: Float[Tensor, "B side side"], scale: float, copies: int) -> Float[Tensor, "B_copies side side"]:
    """`w -> max(w + scale e, least)`, `e ~ N(0, I)`: a few draws for each map, one copy of the batch after another.

    The bound keeps the costs positive and is not differentiated, so that a cell below it still learns.

    Source: Q. Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS (2020), section 3.
    """
    w = w.repeat(copies, 1, 1)
    if scale == 0:
        return w
    noisy = (w.detach() + scale * torch.randn_like(w)).clamp_min(LEAST)
    return w + (noisy - w.detach())


class PathFinder(nn.Module):
    """The model `d -> x(d)`: predicted costs, and the layer's flow under them.

    Args:
        network: `d -> w`.
        grid: of the cells.
        layer: over the grid's flows.
    """

    def __init__(self, network: nn.Module, grid: CellGrid, layer: il2o.LPLayer) -> None:
        super().__init__()
        self.network = network
        self.grid = grid
        self.layer = layer

    def forward(self, images: UInt8[Tensor, "B height width 3"]) -> il2o.Inference:
        """The inference, its `data` the predicted costs of the arcs."""
        return self.layer.inference(self.grid.arc_costs(self.network(images)))


def decide(grid: CellGrid, inference: il2o.Inference) -> Float[Tensor, "B side side"]:
    """The cells of the exact cheapest path under the costs predicted for an inference: what the model does at test time.

    Where nothing was solved, the answer is such cells already. NaN for a map whose predicted costs are not finite.
    """
    return inference.x if inference.problem is None else grid.cells(decide_finite(grid.decoder, inference.data))
