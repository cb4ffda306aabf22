"""Data without the inverse crime: made on a finer grid than the one on which they are reconstructed.

Kaipio and Somersalo, Statistical and Computational Inverse Problems (2005), section 1.2.
"""

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from implicit_l2o.physics._joseph import joseph_matrix
from implicit_l2o.physics._stored_matrix import StoredMatrix
from implicit_l2o.physics.geometry import Geometry
from implicit_l2o.physics.projector import Projector


@final
@dataclass(frozen=True, eq=False)
class UpsampledProjector:
    """Sinograms of finer images on a projector's own detector: each bin is the mean of `factor` finer rays.

    In the scale of the projector, so that what `projector` reconstructs has the values of the image.

    Args:
        projector: the one used for the reconstruction.
        factor: pixels and rays finer than its own, >= 2.

    Raises:
        ValueError: the factor is no whole number >= 2; the finer matrix has more than 5e7 entries; an image of another size.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import Geometry, Projector, UpsampledProjector
        >>> projector = Projector(Geometry.uniform(32, angles=8))
        >>> measure = UpsampledProjector(projector, 2)
        >>> fine = torch.rand(1, 1, 64, 64)
        >>> measure(fine).shape, measure.size
        (torch.Size([1, 8, 47]), 64)
    """

    projector: Projector
    factor: int = 2
    _matrix: StoredMatrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.factor, bool) or not isinstance(self.factor, int) or self.factor < 2:
            raise ValueError(f"UpsampledProjector needs a whole factor >= 2; got factor={self.factor!r}.")
        own = self.projector.geometry
        fine = Geometry(
            self.size,
            own.angles,
            own.sinogram_shape[1] * self.factor,
            pixel_size=own.pixel_size / self.factor,
            detector_spacing=own.spacing / self.factor,
            center=own.center,
        )
        matrix = _mean_of_rows(joseph_matrix(fine), self.factor) / self.projector.scale
        object.__setattr__(self, "_matrix", StoredMatrix(matrix, self.projector.dtype))

    @property
    def size(self) -> int:
        """Pixels on a side of the finer images."""
        return self.projector.geometry.size * self.factor

    def __call__(self, x: Float[Tensor, "B 1 m m"]) -> Float[Tensor, "B angles bins"]:
        """The sinogram.

        Args:
            x: images of side `size`; those of the projector's own size are interpolated linearly first.
        """
        if tuple(x.shape[1:]) == self.projector.in_shape:
            x = interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)
        if tuple(x.shape[1:]) != (1, self.size, self.size):
            raise ValueError(
                f"UpsampledProjector takes images of side {self.size} or {self.projector.geometry.size}; "
                f"got {tuple(x.shape)}."
            )
        return self._matrix.apply(x).reshape(x.shape[0], *self.projector.out_shape)


def _mean_of_rows(matrix: Any, count: int) -> Any:
    """The means of `count` rows each, as a SciPy CSR matrix."""
    from scipy.sparse import csr_array

    rows = matrix.shape[0]
    weights = np.full(rows, 1 / count)
    means = csr_array((weights, np.arange(rows), np.arange(0, rows + 1, count)), shape=(rows // count, rows)) @ matrix
    means.sort_indices()
    return means
