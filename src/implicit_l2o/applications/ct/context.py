"""What the data say about the regulariser: a small U-Net on a first reconstruction."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o import AbstractLinearOperator

_GAIN = 4.0  # of the features: attenuations differ by tenths
_MISFIT_GAIN = 10.0
_STEP = 0.1  # of the proposal


class ContextNetwork(nn.Module):
    """Maps `(x1, fbp, misfit)` to a proposal of the image and to maps that steer a regulariser.

    The U-Net of two levels starts with the proposal `x1` and with maps of zero.

    Args:
        maps: channels for the regulariser.
        width: channels at full resolution; twice as many at half resolution.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.context import ContextNetwork
        >>> x1 = torch.rand(2, 1, 16, 16)
        >>> proposal, maps = ContextNetwork(maps=3)(torch.cat([x1, x1, x1], dim=1))
        >>> torch.equal(proposal, x1), maps.shape
        (True, torch.Size([2, 3, 16, 16]))
    """

    def __init__(self, *, maps: int, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Sequential(_convolution(3, width), nn.ReLU(), _convolution(width, width), nn.ReLU())
        self.down = nn.Sequential(
            _convolution(width, 2 * width, stride=2), nn.ReLU(), _convolution(2 * width, 2 * width), nn.ReLU()
        )
        self.middle = nn.Sequential(_convolution(2 * width, 2 * width), nn.ReLU())
        self.up = nn.Sequential(_convolution(2 * width, width), nn.ReLU())
        self.merge = nn.Sequential(_convolution(2 * width, width), nn.ReLU())
        self.leave = _convolution(width, 1 + maps)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias if self.leave.bias is not None else torch.zeros(0))

    def forward(self, features: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B 1 H W"], Float[Tensor, "B m H W"]]:
        """The proposal and the maps; height and width have to be even."""
        fine = self.enter(_GAIN * features)
        coarse = self.down(fine)
        coarse = coarse + self.middle(coarse)
        back = self.up(F.interpolate(coarse, scale_factor=2.0))
        found = self.leave(self.merge(torch.cat([fine, back], dim=1)))
        return features[:, :1] + _STEP * found[:, :1], found[:, 1:]


def features(
    projector: AbstractLinearOperator, x: Float[Tensor, "B 1 H W"], fbp: Float[Tensor, "B 1 H W"], d: Tensor
) -> Float[Tensor, "B 3 H W"]:
    """The first reconstruction, what filtered back-projection sees beyond it, and its misfit, back-projected."""
    misfit = _MISFIT_GAIN * projector.adjoint(projector.apply(x) - d)
    return torch.cat([x, fbp - x, misfit], dim=1)


def _convolution(channels: int, out: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride=stride, padding=1)
