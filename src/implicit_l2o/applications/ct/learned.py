"""What the learned reconstructions without a constraint share: trained on what the network says, clipped to answer."""

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import ReconstructionTask
from implicit_l2o.training import Optimization


class AbstractNetworkTask(ReconstructionTask, ABC):
    """A network from sinogram to image; a subclass says `reconstruct`.

    Args:
        model: the network.
        size: pixels along one side.
        angles: views.
        clip: cut the answers off at 0 and 1, which can only help; else they are as the network gives them.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self, model: nn.Module, *, size: int, angles: int, clip: bool, optimization: Optimization | None
    ) -> None:
        super().__init__(model, size=size, angles=angles, optimization=optimization)
        self.clip = clip

    @abstractmethod
    def reconstruct(self, d: Float[Tensor, "B angles bins"]) -> Float[Tensor, "B 1 n n"]:
        """The images, of any values."""

    @final
    def training_inference(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """Unclipped, for a pixel beyond the range would get no gradient."""
        self.check_sinogram(d)
        return il2o.Inference(x=self.reconstruct(d), data=d)

    @final
    def infer(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """The images, clipped where that is asked for."""
        self.check_sinogram(d)
        x = self.reconstruct(d)
        return il2o.Inference(x=x.clamp(0, 1) if self.clip else x, data=d)


class ResidualBlocks(nn.Module):
    """Image to image: a convolution to `width` channels, residual blocks of two convolutions, one back; it begins as zero.

    Args:
        channels: of the input.
        width: of the hidden layers.
        blocks: of two convolutions each.
        slope: of the leaky ReLU.

    Raises:
        ValueError: a count is below 1.
    """

    def __init__(self, channels: int, *, width: int, blocks: int, slope: float = 0.05) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("blocks", blocks)):
            if value < 1:
                raise ValueError(f"ResidualBlocks needs {name} >= 1; got {name}={value}.")
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(slope),
                nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(slope),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B 1 H W"]:
        """One channel of the same size."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)
