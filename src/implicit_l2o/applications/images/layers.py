"""What the encoders are made of: normalised intensities, and residual blocks with batch normalisation."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from implicit_l2o.applications.images.blocks import SLOPE


def intensities(images: Num[Tensor, "B colours H W"]) -> Float[Tensor, "B colours H W"]:
    """Bytes as float32 in [0, 1], a 255th each; anything else as it is.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.images.layers import intensities
        >>> intensities(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
        tensor([[[[0., 1.]]]])
    """
    return images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images


class Normalise(nn.Module):
    """`(x - mean) / std`, a colour each, of bytes or of intensities in [0, 1].

    Args:
        mean: of the intensities.
        std: positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Num[Tensor, "B colours H W"]) -> Float[Tensor, "B colours H W"]:
        """See the class."""
        return (intensities(images) - self.mean) / self.std


class StridedBlock(nn.Module):
    """Two convolutions with batch normalisation beside a shortcut without weights: every other pixel, new channels zero.

    Args:
        before: channels that come in.
        after: channels that go out, at least as many.
        stride: 1 or 2.
        dropout: share of the channels dropped after each half.
    """

    def __init__(self, before: int, after: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.added = after - before
        self.halves = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(SLOPE),
            nn.Dropout2d(dropout),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Float[Tensor, "B before H W"]) -> Float[Tensor, "B after H2 W2"]:
        """See the class."""
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.leaky_relu(self.halves(x) + shortcut, SLOPE)


class ResidualUnit(nn.Module):
    """`BN(s(x + conv(drop(s(conv x)))))` with a batch normalisation without weights.

    Args:
        width: channels.
        dropout: share of the channels dropped between the convolutions.
    """

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.normalise = nn.BatchNorm2d(width, affine=False)

    def forward(self, x: Float[Tensor, "B width H W"]) -> Float[Tensor, "B width H W"]:
        """See the class."""
        return self.normalise(F.leaky_relu(x + self.inner(x), SLOPE))
