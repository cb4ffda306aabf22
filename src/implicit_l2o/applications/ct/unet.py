"""A U-Net on filtered back-projection. Jin, McCann, Froustey and Unser, IEEE Trans. Image Process. 26 (2017), FBPConvNet."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.applications.ct.learned import AbstractNetworkTask
from implicit_l2o.physics import FilteredBackProjection
from implicit_l2o.training import Optimization


@final
class UNet(nn.Module):
    """Image to image at several resolutions, each half the one before; it begins as zero.

    Args:
        widths: channels at each resolution, the finest first.
        first_kernel: size of the first block's kernels, odd; the others have 3.

    Raises:
        ValueError: no width, or an even kernel.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.unet import UNet
        >>> UNet((8, 16))(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 1, 32, 32])
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), *, first_kernel: int = 7) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or first_kernel % 2 == 0:
            raise ValueError(
                f"UNet needs positive widths and an odd first_kernel; got {tuple(widths)}, {first_kernel}."
            )
        inputs = [1, *widths[:-1]]
        kernels = [first_kernel, *[3] * (len(widths) - 1)]
        self.down = nn.ModuleList(map(_block, inputs, widths, kernels))
        coarse, fine = widths[:0:-1], widths[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, stride=2) for c, f in zip(coarse, fine, strict=True))
        self.merge = nn.ModuleList(_block(2 * f, f, 3) for f in fine)
        self.last = nn.Conv2d(widths[0], 1, 1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """One channel of the same size; H and W are multiples of `2 ** (len(widths) - 1)`."""
        levels: list[Tensor] = []
        for index, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if index else x)
            levels.append(x)
        for up, merge, level in zip(self.up, self.merge, levels[-2::-1], strict=True):
            x = merge(torch.cat([up(x), level], dim=1))
        return self.last(x)


@final
class UNetTask(AbstractNetworkTask):
    """`x = FBP(d) + U-Net(FBP(d))`: nothing ties the answer to the measurement.

    Args:
        size: pixels along one side; a multiple of `2 ** (len(widths) - 1)`.
        angles: views.
        widths: channels at each resolution.
        first_kernel: of the finest resolution.
        cutoff: of the back-projection's Hann window.
        clip: answers to [0, 1].
        optimization: AdamW and its schedule.

    Raises:
        ValueError: the size cannot be halved so often; as `UNet`.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.unet import UNetTask
        >>> UNetTask(size=32, angles=8, widths=(8, 16)).eval().infer(torch.zeros(1, 8, 47)).x.shape
        torch.Size([1, 1, 32, 32])
    """

    def __init__(
        self,
        *,
        size: int = 64,
        angles: int = 30,
        widths: Sequence[int] = (32, 64, 128),
        first_kernel: int = 7,
        cutoff: float = 0.9,
        clip: bool = True,
        optimization: Optimization | None = None,
    ) -> None:
        if size % 2 ** (len(widths) - 1):
            raise ValueError(f"UNetTask needs size in multiples of {2 ** (len(widths) - 1)}; got size={size}.")
        network = UNet(widths, first_kernel=first_kernel)
        super().__init__(network, size=size, angles=angles, clip=clip, optimization=optimization)
        self._start = FilteredBackProjection(self.projector, "hann", cutoff)

    def reconstruct(self, d: Float[Tensor, "B angles bins"]) -> Float[Tensor, "B 1 n n"]:
        """The back-projection, corrected."""
        x = self._start(d).clamp(0, 1)
        return x + self.model(x)


def _block(inputs: int, outputs: int, kernel: int) -> nn.Module:
    def layer(channels: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(*layer(inputs), *layer(outputs))
