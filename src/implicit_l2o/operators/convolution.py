"""Convolution with zero padding and stride. Its norm by the Fourier symbol: Sedghi, Gupta and Long, ICLR 2019."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

from implicit_l2o.operators._spectral import eigenvalue_bound
from implicit_l2o.operators.base import AbstractLinearOperator


@final
@dataclass(frozen=True, eq=False)
class Convolution2D(AbstractLinearOperator):
    """The linear operator `x -> conv2d(x, weight)` (cross-correlation, as in PyTorch), without bias.

    The weight may be learned: both products differentiate with respect to it.

    Args:
        weight: `(C_out, C_in, kh, kw)`, shared by the batch.
        image_shape: `(C_in, H, W)`, shape of one input sample.
        padding: zeros on each side, a number or `(rows, columns)`.
        stride: >= 1, a number or `(rows, columns)`.

    Raises:
        ValueError: the weight is not four-dimensional, its channels do not fit `image_shape`, or the kernel is larger than
            the padded image.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> blur = il2o.Convolution2D(torch.full((1, 1, 3, 3), 1 / 9), (1, 4, 4), padding=1)
        >>> blur.out_shape, round(blur.norm_bound, 4)
        ((1, 4, 4), 1.0)
    """

    weight: Tensor
    image_shape: tuple[int, int, int]
    padding: int | tuple[int, int] = field(default=0, kw_only=True)
    stride: int | tuple[int, int] = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if self.weight.ndim != 4 or len(self.image_shape) != 3 or self.weight.shape[1] != self.image_shape[0]:
            raise ValueError(
                "Convolution2D needs weight (C_out, C_in, kh, kw) and image_shape (C_in, H, W); got "
                f"{tuple(self.weight.shape)} and {tuple(self.image_shape)}."
            )
        if min(_pair(self.stride)) < 1 or min(_pair(self.padding)) < 0:
            raise ValueError(
                f"Convolution2D needs stride >= 1 and padding >= 0; got stride={self.stride}, padding={self.padding}."
            )
        if min(self.out_shape) < 1:
            raise ValueError(
                f"Convolution2D: the kernel {tuple(self.weight.shape[2:])} is larger than the image "
                f"{tuple(self.image_shape[1:])} with padding {self.padding}."
            )

    @property
    def in_shape(self) -> tuple[int, ...]:
        """`(C_in, H, W)`."""
        return tuple(self.image_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`(C_out, H', W')`."""
        sizes = zip(self.image_shape[1:], self.weight.shape[2:], _pair(self.padding), _pair(self.stride), strict=True)
        return (self.weight.shape[0], *((size + 2 * p - k) // s + 1 for size, k, p, s in sizes))

    @property
    def norm_bound(self) -> float:
        """A proven bound on the norm, within 7 % of the norm of a circular convolution (up to 40 channels).

        Proof: extend the padded image of size `N = (H + 2p, W + 2p)` periodically. Where the kernel does not wrap around,
        the circular convolution on that torus gives the outputs of this operator, so `K = S C E` with `E` the
        zero-padding (an isometry) and `S` the selection of the outputs kept by border and stride (norm at most 1). So
        `|K| <= |C| = max_w |W(w)|_2` over the `N` Fourier frequencies `w`, `W(w)` being `C_out x C_in`. For large images
        fewer frequencies do: `u* W(w) v` is, up to a phase, a trigonometric polynomial of degree `d = k // 2` in each
        variable, so its maximum is at most `1 / cos(pi d / M)` times that over `M` equispaced points (M. Riesz, 1914).
        """
        return self._fixed_norm_bound if not self.weight.requires_grad else self._bound()

    @cached_property
    def _fixed_norm_bound(self) -> float:
        return self._bound()

    def _bound(self) -> float:
        points, factor = [], 1.0
        for size, kernel, padding in zip(self.image_shape[1:], self.weight.shape[2:], _pair(self.padding), strict=True):
            points.append(min(size + 2 * padding, 16 * kernel))
            if points[-1] < size + 2 * padding:
                factor /= math.cos(math.pi * (kernel // 2) / points[-1])
        # Half of the frequencies: the others are complex conjugates, with the same norm.
        symbol = torch.fft.rfft2(self.weight.detach().double(), s=points).permute(2, 3, 0, 1)
        gram = symbol @ symbol.mH if symbol.shape[-2] <= symbol.shape[-1] else symbol.mH @ symbol
        return factor * math.sqrt(float(eigenvalue_bound(gram).max()))

    def apply(self, x: Float[Tensor, "B C_in H W"]) -> Float[Tensor, "B C_out H2 W2"]:
        """`K x`."""
        return conv2d(x, self.weight, stride=self.stride, padding=self.padding)

    def adjoint(self, y: Float[Tensor, "B C_out H2 W2"]) -> Float[Tensor, "B C_in H W"]:
        """`K^T y`, the transposed convolution."""
        sizes = zip(self.image_shape[1:], self.weight.shape[2:], _pair(self.padding), _pair(self.stride), strict=True)
        # Rows that the stride left over at the border never entered K: the adjoint puts zeros there.
        rest = [(size + 2 * p - k) % s for size, k, p, s in sizes]
        return conv_transpose2d(y, self.weight, stride=self.stride, padding=self.padding, output_padding=rest)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
