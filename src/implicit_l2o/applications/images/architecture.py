"""The encoders `Q` and readouts `S` around a latent map: the published sizes, by Wu Fung et al., JFB (AAAI 2022), section 5.

`MNIST` has 35,856 parameters, `SVHN` and `CIFAR10` 163,744, `CIFAR10_AUGMENTED` 843,430, as many as the paper's networks.
Of the 163,744 there, 256 belong to two batch normalisations of 64 channels that nothing calls; here two such normalise
the injection and the equilibrium. Batch normalisation stands before and after the solve, never in it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from implicit_l2o.applications.images.blocks import SLOPE
from implicit_l2o.applications.images.readout import Readout

_HIDDEN = 16  # channels of the first encoder layer and of the readout
_GREY = (0.1307,), (0.3081,)
_STREET = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
_PHOTOGRAPHS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the paper has them for CIFAR-10
_PAD = 0.449  # of the normalised pixels around the images of `DeepNet`


class AbstractArchitecture(ABC):
    """Sizes of a classifier, and how its encoder and its readout are made.

    Attributes:
        side: height and width of the images, pixels.
        mean: of the intensities in [0, 1], one a colour; the encoder subtracts it.
        std: what the encoder divides by then.
        blocks: residual blocks of the latent map.
        dropout: share that the readout drops in training.
    """

    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    blocks: int
    dropout: float

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of the latent."""

    @property
    @abstractmethod
    def latent_side(self) -> int:
        """Height and width of the latent."""

    @abstractmethod
    def encoder(self) -> nn.Module:
        """`Q`, from intensities `(B, colours, side, side)` to `(B, channels, latent_side, latent_side)`."""

    @abstractmethod
    def readout(self) -> Readout:
        """`S`, from the latent to the logits."""

    @property
    @final
    def colours(self) -> int:
        """1 for grey images, 3 for colour."""
        return len(self.mean)


def check_sizes(architecture: AbstractArchitecture) -> None:
    """Raise a `ValueError` where the sizes cannot be those of a network."""
    name = type(architecture).__name__
    if len(architecture.mean) != len(architecture.std) or len(architecture.mean) not in (1, 3):
        raise ValueError(
            f"{name} needs mean and std of 1 or 3 colours; got {architecture.mean} and {architecture.std}."
        )
    if min(architecture.std) <= 0:
        raise ValueError(f"{name} needs std > 0; got std={architecture.std}.")
    if not 0 <= architecture.dropout < 1:
        raise ValueError(f"{name} needs 0 <= dropout < 1; got dropout={architecture.dropout}.")
    if architecture.blocks < 1:
        raise ValueError(f"{name} needs blocks >= 1; got blocks={architecture.blocks}.")
    if architecture.latent_side < 3:
        raise ValueError(
            f"{name}: the readout's 3x3 convolution needs a latent of at least 3x3; got {architecture.latent_side} from "
            f"side={architecture.side}."
        )


@final
@dataclass(frozen=True, kw_only=True)
class ShallowNet(AbstractArchitecture):
    """Two convolutions with a max-pooling between them; for grey digits.

    Args:
        width: channels of the latent; even.
        pool: factor by which the encoder reduces the side.

    Raises:
        ValueError: the sizes do not fit.

    Example:
        >>> from implicit_l2o.applications.images.architecture import ShallowNet
        >>> ShallowNet(side=28, width=32, pool=3).latent_side
        9
    """

    side: int = 8
    mean: tuple[float, ...] = _GREY[0]
    std: tuple[float, ...] = _GREY[1]
    blocks: int = 1
    dropout: float = 0.1
    width: int = 8
    pool: int = 1

    def __post_init__(self) -> None:
        if min(self.width, self.pool) < 1:
            raise ValueError(f"ShallowNet needs width, pool >= 1; got width={self.width}, pool={self.pool}.")
        check_sizes(self)

    @property
    def channels(self) -> int:
        """`width`."""
        return self.width

    @property
    def latent_side(self) -> int:
        """`side // pool`."""
        return self.side // self.pool

    def encoder(self) -> nn.Module:
        """See `AbstractArchitecture`."""
        return nn.Sequential(
            Normalise(self.mean, self.std),
            nn.Conv2d(self.colours, _HIDDEN, 3, padding=1),
            nn.BatchNorm2d(_HIDDEN),
            nn.LeakyReLU(SLOPE),
            nn.MaxPool2d(self.pool),
            nn.Conv2d(_HIDDEN, self.width, 3, padding=1),
            nn.BatchNorm2d(self.width),
            nn.LeakyReLU(SLOPE),
        )

    def readout(self) -> Readout:
        """See `AbstractArchitecture`."""
        return Readout(self.channels, _HIDDEN, self.latent_side, dropout=nn.Dropout2d(self.dropout))


@final
@dataclass(frozen=True, kw_only=True)
class ResidualNet(AbstractArchitecture):
    """Residual blocks of 16, 32 and 64 channels, the last two halving the side; for SVHN and CIFAR-10.

    Args:
        widths: channels of the residual blocks, the last those of the latent.
        block_dropout: share of the channels that each half of a block drops in training.

    Raises:
        ValueError: the sizes do not fit.

    Example:
        >>> from implicit_l2o.applications.images.architecture import CIFAR10
        >>> CIFAR10.channels, CIFAR10.latent_side
        (64, 8)
    """

    side: int = 32
    mean: tuple[float, ...] = _PHOTOGRAPHS[0]
    std: tuple[float, ...] = _PHOTOGRAPHS[1]
    blocks: int = 1
    dropout: float = 0.2
    widths: tuple[int, ...] = (16, 32, 64)
    block_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.widths or list(self.widths) != sorted(self.widths) or self.widths[0] < 1:
            raise ValueError(f"ResidualNet needs widths >= 1 that do not fall; got widths={self.widths}.")
        if not 0 <= self.block_dropout < 1:
            raise ValueError(f"ResidualNet needs 0 <= block_dropout < 1; got block_dropout={self.block_dropout}.")
        check_sizes(self)

    @property
    def channels(self) -> int:
        """The last width."""
        return self.widths[-1]

    @property
    def latent_side(self) -> int:
        """`side` halved, rounded up, by every block but the first."""
        side = self.side
        for _ in self.widths[1:]:
            side = (side + 1) // 2
        return side

    def encoder(self) -> nn.Module:
        """See `AbstractArchitecture`."""
        first = self.widths[0]
        stem = (
            nn.Conv2d(self.colours, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.LeakyReLU(SLOPE),
        )
        before = (first, *self.widths[:-1])
        strides = (1, *(2 for _ in self.widths[1:]))
        blocks = (
            StridedBlock(a, b, stride=stride, dropout=self.block_dropout)
            for a, b, stride in zip(before, self.widths, strides, strict=True)
        )
        return nn.Sequential(Normalise(self.mean, self.std), *stem, *blocks, nn.BatchNorm2d(self.channels))

    def readout(self) -> Readout:
        """See `AbstractArchitecture`."""
        return Readout(self.channels, _HIDDEN, self.latent_side, dropout=nn.Dropout2d(self.dropout), normalise=True)


@final
@dataclass(frozen=True, kw_only=True)
class DeepNet(AbstractArchitecture):
    """Residual units of one width, the side halved after each half of them; for augmented CIFAR-10.

    Args:
        width: channels of every unit and of the latent.
        units: residual units of the encoder; even.
        padding: pixels of a constant around the image.
        unit_dropout: share of the channels that a unit drops in training.

    Raises:
        ValueError: the sizes do not fit.

    Example:
        >>> from implicit_l2o.applications.images.architecture import CIFAR10_AUGMENTED
        >>> CIFAR10_AUGMENTED.channels, CIFAR10_AUGMENTED.latent_side, CIFAR10_AUGMENTED.blocks
        (35, 10, 5)
    """

    side: int = 32
    mean: tuple[float, ...] = _PHOTOGRAPHS[0]
    std: tuple[float, ...] = _PHOTOGRAPHS[1]
    blocks: int = 5
    dropout: float = 0.1
    width: int = 35
    units: int = 32
    padding: int = 4
    unit_dropout: float = 0.15

    def __post_init__(self) -> None:
        if self.units < 2 or self.units % 2 or self.width < 1 or self.padding < 0:
            raise ValueError(
                "DeepNet needs an even number of units >= 2, width >= 1 and padding >= 0; got "
                f"units={self.units}, width={self.width}, padding={self.padding}."
            )
        if not 0 <= self.unit_dropout < 1:
            raise ValueError(f"DeepNet needs 0 <= unit_dropout < 1; got unit_dropout={self.unit_dropout}.")
        check_sizes(self)

    @property
    def channels(self) -> int:
        """`width`."""
        return self.width

    @property
    def latent_side(self) -> int:
        """A quarter of the padded side, rounded down."""
        return (self.side + 2 * self.padding) // 2 // 2

    def encoder(self) -> nn.Module:
        """See `AbstractArchitecture`."""
        half = self.units // 2
        return nn.Sequential(
            Normalise(self.mean, self.std),
            nn.ConstantPad2d(self.padding, _PAD),
            nn.Conv2d(self.colours, self.width, 7, padding=3, padding_mode="replicate"),
            nn.LeakyReLU(SLOPE),
            *(ResidualUnit(self.width, dropout=self.unit_dropout) for _ in range(half)),
            nn.AvgPool2d(2),
            *(ResidualUnit(self.width, dropout=self.unit_dropout) for _ in range(half)),
            nn.AvgPool2d(2),
        )

    def readout(self) -> Readout:
        """See `AbstractArchitecture`."""
        return Readout(
            self.channels, self.width, self.latent_side, stride=2, padding=1, dropout=nn.Dropout(self.dropout)
        )


def intensities(images: Num[Tensor, "B colours H W"]) -> Float[Tensor, "B colours H W"]:
    """Bytes as float32 in [0, 1], a 255th each; anything else as it is.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.images.architecture import intensities
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


DIGITS = ShallowNet(mean=(0.3053,), std=(0.3760,))  # of scikit-learn's 8x8 digits
MNIST = ShallowNet(side=28, width=32, pool=3, dropout=0.2)
SVHN = ResidualNet(mean=_STREET[0], std=_STREET[1])
CIFAR10 = ResidualNet()
CIFAR10_AUGMENTED = DeepNet()
