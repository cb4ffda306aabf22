"""The residual blocks of the latent map, with what can be folded into their weights folded in: they are called many times.

A block is `keep (x + N(x))`, `N` two convolutions. `keep` is multiplied into the second one. Between them `GroupSort` is an
absolute value: with `p`, `q` the pair, `max = (p + q + |p - q|) / 2` and `min = (p + q - |p - q|) / 2`, so the first
convolution gives sums and differences, and the second takes sums and absolute values. Without gradients it is in place.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SLOPE = 0.1  # of every leaky rectifier


class AbstractBlock(ABC):
    """A map of images to images of the same shape, per sample."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B channels side side"]:
        """The block's output, per sample; the argument is left as it was."""


@final
@dataclass(frozen=True, eq=False)
class MaxMinBlock(AbstractBlock):
    """`keep x + W_2 [s; |d|] + b_2` with `[s; d] = W_1 x + b_1`; made by `max_min_block`.

    Args:
        weights: two kernels `(channels, channels, k, k)`; the first gives the sums `s`, then the differences `d`.
        biases: two vectors `(channels,)`.
        keep: share of the input.
    """

    weights: tuple[Tensor, Tensor]
    biases: tuple[Tensor, Tensor]
    keep: float

    def __call__(self, x: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B channels side side"]:
        """See the class."""
        inner = F.conv2d(x, self.weights[0], self.biases[0], padding="same")
        half = len(self.weights[0]) // 2
        if torch.is_grad_enabled():
            inner = torch.cat([inner[:, :half], inner[:, half:].abs()], dim=1)
            return torch.add(F.conv2d(inner, self.weights[1], self.biases[1], padding="same"), x, alpha=self.keep)
        inner[:, half:].abs_()
        return F.conv2d(inner, self.weights[1], self.biases[1], padding="same").add_(x, alpha=self.keep)


def max_min_block(
    first: Float[Tensor, "hidden channels k k2"],
    before: Float[Tensor, " hidden"],
    second: Float[Tensor, "channels hidden k k2"],
    after: Float[Tensor, " channels"],
    keep: float,
) -> MaxMinBlock:
    """`keep (x + W_2 GroupSort(W_1 x + b_1) + b_2)`.

    Args:
        first: `W_1`; an even number of outputs.
        before: `b_1`.
        second: `W_2`.
        after: `b_2`.
        keep: factor of it all.

    Example:
        >>> import torch
        >>> import torch.nn.functional as F
        >>> from implicit_l2o.applications.images.blocks import max_min_block
        >>> from implicit_l2o.networks import GroupSort
        >>> W, b, x = torch.randn(4, 4, 3, 3), torch.randn(4), torch.randn(1, 4, 5, 5)
        >>> inner = GroupSort()(F.conv2d(x, W, b, padding=1))
        >>> plain = 0.5 * (x + F.conv2d(inner, W, b, padding=1))
        >>> torch.allclose(max_min_block(W, b, W, b, 0.5)(x), plain, atol=1e-4)
        True
    """
    p, q = first[0::2], first[1::2]
    b_p, b_q = before[0::2], before[1::2]
    largest, smallest = second[:, 0::2], second[:, 1::2]
    return MaxMinBlock(
        (
            torch.cat([p + q, p - q]),
            torch.cat([largest + smallest, largest - smallest], dim=1) * (0.5 * keep),
        ),
        (torch.cat([b_p + b_q, b_p - b_q]), keep * after),
        keep,
    )


@final
@dataclass(frozen=True, eq=False)
class LeakyBlock(AbstractBlock):
    """`keep x + o(W_2 s(W_1 x + b_1) + b_2)` with `s` the leaky rectifier, and `o` the same or nothing.

    Args:
        weights: two kernels `(channels, channels, k, k)`, the second times `keep`.
        biases: two vectors `(channels,)`, the second times `keep`.
        keep: share of the input.
        outer: whether `o` is the rectifier.
    """

    weights: tuple[Tensor, Tensor]
    biases: tuple[Tensor, Tensor]
    keep: float
    outer: bool

    def __call__(self, x: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B channels side side"]:
        """See the class."""
        in_place = not torch.is_grad_enabled()
        inner = F.conv2d(x, self.weights[0], self.biases[0], padding="same")
        inner = F.leaky_relu(inner, SLOPE, inplace=in_place)
        inner = F.conv2d(inner, self.weights[1], self.biases[1], padding="same")
        if self.outer:
            inner = F.leaky_relu(inner, SLOPE, inplace=in_place)
        return inner.add_(x, alpha=self.keep) if in_place else torch.add(inner, x, alpha=self.keep)

    @torch.no_grad()
    def jacobian_norm(
        self,
        x: Float[Tensor, "B channels side side"],
        direction: Float[Tensor, "1 channels side side"],
        rounds: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "1 channels side side"]]:
        """The largest `|dN/dx|` over the batch as power iteration sees it, a lower bound, and the direction it ended at."""
        slopes = []
        inner = x
        for weight, bias, bends in zip(self.weights, self.biases, (True, self.outer), strict=True):
            inner = F.conv2d(inner, weight, bias, padding="same")
            slopes.append(torch.where(inner > 0, 1.0, SLOPE if bends else 1.0).to(x.dtype))
            inner = inner * slopes[-1]
        w, size = direction.expand_as(x), x.new_zeros(len(x), 1, 1, 1)
        for turn in range(rounds + 1):
            w = w / _size(w).clamp_min(torch.finfo(x.dtype).tiny)
            image = w
            for weight, slope in zip(self.weights, slopes, strict=True):
                image = slope * F.conv2d(image, weight, padding="same")
            size = _size(image)
            if turn < rounds:
                w = image
                for weight, slope in zip(reversed(self.weights), reversed(slopes), strict=True):
                    w = F.conv_transpose2d(slope * w, weight, padding=weight.shape[-1] // 2)
        worst = int(size.argmax())
        return size[worst, 0, 0, 0] / self.keep, w[worst : worst + 1]


def _size(x: Tensor) -> Tensor:
    """The norm of each sample, to be divided by."""
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
