"""The parallel-beam projector: a stored sparse matrix of norm one and its exact transpose."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._sparse import sparse_norm_bound
from implicit_l2o.operators.base import AbstractLinearOperator
from implicit_l2o.physics._joseph import joseph_matrix
from implicit_l2o.physics._stored_matrix import StoredMatrix
from implicit_l2o.physics.geometry import Geometry


@final
@dataclass(frozen=True, eq=False)
class Projector(AbstractLinearOperator):
    """Line integrals of images, divided by the norm of the map: `A = R / scale` with `|A| = 1`.

    `R` is Joseph's projector: `scale * A x` are the line integrals in the units of the geometry. The adjoint is the
    transposed matrix itself, and both products differentiate any number of times, forwards and backwards. They run on the
    device of their argument.

    Args:
        geometry: which lines.
        dtype: of the matrix, and so of images and sinograms: float32 or float64.

    Attributes:
        scale: what `R` is divided by, in the unit of length of the geometry: a proven bound on its spectral norm, which it
            exceeds by less than 1e-6 for angles around half a turn (0.3 % for one angle or a few neighbours).

    Raises:
        ValueError: the matrix would have more than 5e7 entries; an image or sinogram of another shape or dtype.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import Geometry, Projector
        >>> projector = Projector(Geometry.uniform(128, angles=30))
        >>> projector.apply(torch.ones(2, 1, 128, 128)).shape, round(projector.scale, 1)
        (torch.Size([2, 30, 183]), 61.2)
    """

    geometry: Geometry
    dtype: torch.dtype = field(default=torch.float32, kw_only=True)
    scale: float = field(init=False)
    _matrix: StoredMatrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"Projector computes in torch.float32 or torch.float64; got dtype={self.dtype}.")
        matrix = joseph_matrix(self.geometry)
        scale = sparse_norm_bound(matrix)
        if scale == 0:
            raise ValueError("Projector: no ray of the geometry meets the image, so there is no norm to divide by.")
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "_matrix", StoredMatrix(matrix / scale, self.dtype))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """`(1, size, size)`."""
        return self.geometry.image_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`(angles, bins)`."""
        return self.geometry.sinogram_shape

    @property
    def norm_bound(self) -> float:
        """1, up to the rounding of the entries."""
        return 1 + 4 * torch.finfo(self.dtype).eps

    def apply(self, x: Float[Tensor, "B 1 n n"]) -> Float[Tensor, "B angles bins"]:
        """`A x`, the sinogram of norm at most `|x|`."""
        _check(x, self.in_shape, self.dtype, "images")
        return self._matrix.apply(x).reshape(x.shape[0], *self.out_shape)

    def adjoint(self, y: Float[Tensor, "B angles bins"]) -> Float[Tensor, "B 1 n n"]:
        """`A^T y`, the unfiltered back-projection."""
        self.check_sinogram(y)
        return self._matrix.adjoint(y).reshape(y.shape[0], *self.in_shape)

    def check_sinogram(self, y: Tensor) -> None:
        """Raise a `ValueError` that says what a sinogram of this projector is, unless `y` is one."""
        _check(y, self.out_shape, self.dtype, "sinograms")


def _check(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> None:
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"Projector takes {what} of shape (B, {', '.join(map(str, shape))}); got {tuple(x.shape)}.")
    if x.dtype != dtype:
        raise ValueError(f"Projector computes in {dtype}; got {what} in {x.dtype}: convert one of them.")
