"""Ridge functions with weights that differ by pixel, and the filter bank that learns them.

A convex-ridge regulariser: Goujon et al., A neural-network-based convex regularizer for inverse problems (2023). Here the
weights may depend on the data.
"""

from dataclasses import dataclass, field
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o import DATA, AbstractSmooth
from implicit_l2o.networks import conv2d_norm_bound

# Differences of neighbours: down, across and along the two diagonals.
_DIFFERENCES = ((1, 0), (0, 1), (1, 1), (1, -1))


@final
@dataclass(frozen=True, eq=False)
class Ridges(AbstractSmooth):
    """`f(x) = sum_i w_i huber_t((K x)_i)`, with the gradient `K^T (w * clamp(K x, -t, t))`.

    `huber_t(s)` is `s^2 / 2` up to `t` and `t |s| - t^2 / 2` beyond. `f` is convex for `w >= 0`; with `|K| <= 1` and
    `w <= 1` its gradient is 1-Lipschitz, so `x - s grad f(x)` is nonexpansive for `0 <= s <= 2`.

    Args:
        kernels: of the filters `K`, `(filters, 1, k, k)`, `k` odd, with `|K| <= 1`.
        weights: `w`, in [0, 1], `(B, filters, H, W)`, or `(1, filters, 1, 1)` for one value a filter.
        thresholds: `t`, `(filters, 1, 1)`, positive.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.ridges import differences
        >>> cost = differences(threshold=0.01, shape=(8, 8))
        >>> cost.value(torch.full((1, 1, 8, 8), 0.5)).shape
        torch.Size([1])
    """

    kernels: Tensor
    weights: Tensor = field(metadata=DATA)
    thresholds: Tensor

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0

    def apply(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """The gradient."""
        return transposed(clipped(self._filtered(x), self.thresholds).mul_(self.weights), self.kernels)

    def value(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
        """`f(x)`."""
        size, limit = self._filtered(x).abs(), self.thresholds
        huber = torch.where(size <= limit, size.square() / 2, limit * size - limit.square() / 2)
        return (self.weights * huber).flatten(1).sum(1)

    def _filtered(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernels, padding="same")


def clipped(y: Float[Tensor, "B filters H W"], limits: Float[Tensor, "filters 1 1"]) -> Float[Tensor, "B filters H W"]:
    """`y` clamped to `[-limits, limits]`, in place: passes over memory are most of a regulariser's time."""
    return y.clamp_(-limits, limits)


def transposed(y: Float[Tensor, "B filters H W"], kernels: Float[Tensor, "filters 1 k k"]) -> Float[Tensor, "B 1 H W"]:
    """The transpose of the zero-padded convolution by `kernels`.

    A product, whose entries are added where they belong: on a CPU several times faster than `conv_transpose2d` to a single
    channel. A gradient goes through `fold`, which does the same more slowly in one operation.
    """
    filters, size = kernels.shape[0], kernels.shape[-1]
    height, width = y.shape[-2:]
    # For each sample its own product: a shared one would be made of copies in another order, as its gradient would.
    spread = kernels.reshape(filters, -1).mT.expand(len(y), -1, -1) @ y.flatten(2)
    if spread.requires_grad or spread.device.type != "cpu":
        return F.fold(spread, (height, width), size, padding=size // 2)
    spread = spread.reshape(len(y), size, size, height, width)
    padded = y.new_zeros(len(y), height + size - 1, width + size - 1)
    for i in range(size):
        for j in range(size):
            padded[:, i : i + height, j : j + width] += spread[:, i, j]
    edge = size // 2
    return padded[:, None, edge : edge + height, edge : edge + width].contiguous()


class FilterBank(nn.Module):
    """The learned part of `Ridges`: zero-mean filters, bounded by their proven norm, and thresholds.

    It starts as differences of neighbours, from which a training gets much further than from random filters.

    Args:
        shape: largest image `(H, W)`, for which the norm is bounded.
        filters: at least 4.
        kernel_size: odd.
        threshold: of all filters at first, for images in [0, 1].

    Raises:
        ValueError: fewer than four filters, or an even kernel size.
    """

    def __init__(
        self, shape: tuple[int, int], *, filters: int = 16, kernel_size: int = 5, threshold: float = 0.01
    ) -> None:
        super().__init__()
        if filters < len(_DIFFERENCES) or kernel_size % 2 == 0:
            raise ValueError(f"FilterBank needs filters >= 4 and odd kernel_size; got {filters} and {kernel_size}.")
        kernels = 0.1 * torch.randn(filters, 1, kernel_size, kernel_size) / kernel_size
        kernels[: len(_DIFFERENCES)] = difference_kernels(kernel_size)
        self.shape = shape
        self.kernels = nn.Parameter(kernels)
        self.log_thresholds = nn.Parameter(torch.full((filters, 1, 1), threshold).log())

    def forward(self, weights: Float[Tensor, "B filters H W"]) -> Ridges:
        """The ridge functions for weights in [0, 1], their filters normalised."""
        return Ridges(normalised(self.kernels, self.shape), weights, self.log_thresholds.exp())


def normalised(kernels: Float[Tensor, "filters 1 k k"], shape: tuple[int, int]) -> Float[Tensor, "filters 1 k k"]:
    """Zero-mean filters of norm at most 1 on images up to `shape`."""
    kernels = kernels - kernels.mean((2, 3), keepdim=True)
    return kernels / conv2d_norm_bound(kernels, shape)


def difference_kernels(size: int) -> Float[Tensor, "4 1 size size"]:
    """Differences of a pixel and its neighbour, in four directions."""
    kernels, middle = torch.zeros(len(_DIFFERENCES), 1, size, size), size // 2
    for kernel, (down, across) in zip(kernels, _DIFFERENCES, strict=True):
        kernel[0, middle, middle] = -0.25
        kernel[0, middle + down, middle + across] = 0.25
    return kernels


def differences(*, threshold: float, shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Ridges:
    """A smoothed total variation over four directions: nothing learned."""
    kernels = normalised(difference_kernels(3), shape).to(dtype)
    count = len(_DIFFERENCES)
    ones = torch.ones(1, count, 1, 1, dtype=dtype)
    return Ridges(kernels, ones, torch.full((count, 1, 1), threshold, dtype=dtype))
