"""Forward differences of an image. Chambolle, J. Math. Imaging Vision 20 (2004), section 2: gradient and divergence."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from implicit_l2o.operators.base import AbstractLinearOperator


@final
@dataclass(frozen=True, eq=False)
class FiniteDifferences2D(AbstractLinearOperator):
    """The discrete gradient of an image: forward differences down and across, zero at the last row and column.

    `(D x)[0, ..., i, j] = x[i+1, j] - x[i, j]` and `(D x)[1, ..., i, j] = x[i, j+1] - x[i, j]`. Isotropic total variation
    is `GroupL2Norm(dim=0)` of it, anisotropic total variation `L1Norm()`.

    Args:
        shape: shape of one image, `(H, W)` or `(C, H, W)`; the output is `(2, *shape)`.

    Raises:
        ValueError: `shape` is neither `(H, W)` nor `(C, H, W)` with positive sizes.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.FiniteDifferences2D((2, 2)).apply(torch.tensor([[[1.0, 2.0], [4.0, 8.0]]]))
        tensor([[[[3., 6.],
                  [0., 0.]],
        <BLANKLINE>
                 [[1., 0.],
                  [4., 0.]]]])
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ValueError(f"FiniteDifferences2D needs shape (H, W) or (C, H, W); got {tuple(self.shape)}.")

    @property
    def in_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return tuple(self.shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`(2, *shape)`."""
        return (2, *self.shape)

    @property
    def norm_bound(self) -> float:
        """The norm itself, below sqrt(8).

        `D^T D` is diagonal in the cosine basis, with largest eigenvalue `4 cos(pi / 2H)^2 + 4 cos(pi / 2W)^2`.
        """
        height, width = self.shape[-2:]
        largest = 4 * math.cos(math.pi / (2 * height)) ** 2 + 4 * math.cos(math.pi / (2 * width)) ** 2
        return math.sqrt(largest) * (1 + 1e-15)

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B 2 *shape"]:
        """`D x`."""
        down = pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
        across = pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))
        return torch.stack([down, across], dim=1)

    def adjoint(self, y: Float[Tensor, "B 2 *shape"]) -> Float[Tensor, "B *shape"]:
        """`D^T y`, the negative divergence."""
        down, across = y[:, 0, ..., :-1, :], y[:, 1, ..., :, :-1]
        return pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1)) + pad(across, (1, 0)) - pad(across, (0, 1))
