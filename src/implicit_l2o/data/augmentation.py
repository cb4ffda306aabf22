"""Random changes of training images: moved, mirrored, with a part erased. On tensors, a batch at once, a draw an image.

They follow torchvision's `RandomCrop`, `RandomHorizontalFlip` and `RandomErasing` in distribution, which draw once for all
images of a tensor, and need no other package.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_ATTEMPTS = 10  # at a rectangle that fits into the image, as torchvision has it


class AbstractAugmentation(ABC):
    """A random change of images that leaves their classes as they are."""

    @abstractmethod
    def __call__(
        self, images: Float[Tensor, "B colours H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B colours H W"]:
        """The changed images; the argument is left as it was.

        Args:
            images: a batch.
            generator: on the CPU, wherever the images are: one random state to restore. None is PyTorch's global one.
        """


@final
@dataclass(frozen=True)
class RandomCrop(AbstractAugmentation):
    """A window of the image's size out of the padded image: every image moved by up to `padding` pixels in both directions.

    Args:
        padding: pixels on each side, at least 0.
        fill: what the padding is filled with.

    Raises:
        ValueError: a negative padding.

    Example:
        >>> import torch
        >>> from implicit_l2o.data.augmentation import RandomCrop
        >>> image = torch.zeros(1, 1, 5, 5)
        >>> image[0, 0, 2, 2] = 1.0
        >>> moved = RandomCrop(1)(image)
        >>> float(moved.sum()), float(moved[0, 0, 1:4, 1:4].sum())
        (1.0, 1.0)
    """

    padding: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"RandomCrop needs padding >= 0; got padding={self.padding}.")

    def __call__(
        self, images: Float[Tensor, "B colours H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B colours H W"]:
        """See `AbstractAugmentation`."""
        batch, _, height, width = images.shape
        offset = torch.randint(0, 2 * self.padding + 1, (2, batch, 1), generator=generator).to(images.device)
        rows = torch.arange(height, device=images.device) + offset[0]
        columns = torch.arange(width, device=images.device) + offset[1]
        padded = F.pad(images, [self.padding] * 4, value=self.fill)
        sample = torch.arange(batch, device=images.device)[:, None, None]
        # Indices on both sides of the colours: those come last.
        return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


@final
@dataclass(frozen=True)
class HorizontalFlip(AbstractAugmentation):
    """Mirrored from left to right, with a probability.

    Args:
        probability: in [0, 1].

    Raises:
        ValueError: the probability is outside [0, 1].

    Example:
        >>> import torch
        >>> from implicit_l2o.data.augmentation import HorizontalFlip
        >>> HorizontalFlip(1.0)(torch.tensor([[[[1.0, 2.0]]]]))
        tensor([[[[2., 1.]]]])
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_probability("HorizontalFlip", self.probability)

    def __call__(
        self, images: Float[Tensor, "B colours H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B colours H W"]:
        """See `AbstractAugmentation`."""
        chosen = torch.rand(len(images), generator=generator) < self.probability
        return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


@final
@dataclass(frozen=True)
class RandomErasing(AbstractAugmentation):
    """A rectangle of the image replaced by a constant (Zhong et al., Random Erasing Data Augmentation, AAAI 2020).

    Its area is uniform in `area` (as a share of the image), the logarithm of height over width in that of `ratio`, its place
    anywhere in the image. Of ten such draws the first that fits is taken; where none does, nothing is erased.

    Args:
        probability: that something is erased, in [0, 1].
        area: smallest and largest share of the image, in (0, 1].
        ratio: smallest and largest height over width, positive.
        value: one for all colours, or one a colour.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.data.augmentation import RandomErasing
        >>> erased = RandomErasing(1.0, area=(0.25, 0.25), ratio=(1.0, 1.0))(torch.ones(3, 1, 8, 8))
        >>> (erased == 0).flatten(1).sum(1)
        tensor([16, 16, 16])
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        _check_probability("RandomErasing", self.probability)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"RandomErasing needs 0 < area[0] <= area[1] <= 1; got area={self.area}.")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(f"RandomErasing needs 0 < ratio[0] <= ratio[1]; got ratio={self.ratio}.")

    def __call__(
        self, images: Float[Tensor, "B colours H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B colours H W"]:
        """See `AbstractAugmentation`."""
        batch, colours, height, width = images.shape
        draws = torch.rand(5, _ATTEMPTS, batch, generator=generator, dtype=torch.float64)
        area = (self.area[0] + (self.area[1] - self.area[0]) * draws[0]) * height * width
        ratio = math.log(self.ratio[0]) + (math.log(self.ratio[1]) - math.log(self.ratio[0])) * draws[1]
        tall, wide = (area * ratio.exp()).sqrt().round(), (area / ratio.exp()).sqrt().round()
        fits = (tall <= height) & (wide <= width)
        first = fits.to(torch.uint8).argmax(0, keepdim=True)
        chosen = fits.any(0) & (draws[4, 0] < self.probability)
        tall, wide, down, right = (part.gather(0, first)[0] for part in (tall, wide, draws[2], draws[3]))
        top, left = (down * (height - tall + 1)).floor(), (right * (width - wide + 1)).floor()
        rows, columns = torch.arange(height)[None, :], torch.arange(width)[None, :]
        in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
        in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        inside = in_rows[:, :, None] & in_columns[:, None, :] & chosen[:, None, None]
        return torch.where(inside.to(images.device)[:, None], self._filling(images, colours), images)

    def _filling(self, images: Tensor, colours: int) -> Tensor:
        values = [self.value] if isinstance(self.value, int | float) else list(self.value)
        if len(values) not in (1, colours):
            raise ValueError(f"RandomErasing needs one value or one for each of {colours} colours; got {self.value}.")
        return images.new_tensor(values)[:, None, None]


def _check_probability(name: str, probability: float) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f"{name} needs 0 <= probability <= 1; got probability={probability}.")
