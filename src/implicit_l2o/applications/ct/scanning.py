"""The scanner of a reconstruction, and what its sinograms have to look like."""

from functools import lru_cache

import torch
from torch import Tensor

from implicit_l2o.physics import Geometry, Projector


@lru_cache(maxsize=8)
def scanner(size: int = 64, angles: int = 30, dtype: torch.dtype = torch.float32) -> Projector:
    """The projector of norm 1 of `size` x `size` pixels and `angles` views; one for all that ask for the same.

    Example:
        >>> from implicit_l2o.applications.ct.scanning import scanner
        >>> scanner(64).out_shape, scanner(64) is scanner(64)
        ((30, 93), True)
    """
    return Projector(Geometry.uniform(size, angles=angles), dtype=dtype)


def check_sinogram(d: Tensor, projector: Projector) -> None:
    """Raise a `ValueError` unless `d` is a batch of the projector's sinograms with finite entries.

    Args:
        d: to be checked, `(B, angles, bins)`.
        projector: says the geometry.
    """
    views, bins = projector.out_shape
    if d.ndim != 3 or tuple(d.shape[1:]) != (views, bins):
        raise ValueError(
            f"a sinogram of this scanner is (B, {views} angles, {bins} bins); got shape {tuple(d.shape)}. Another "
            "geometry needs another model: set size and angles to those of the data."
        )
    finite = torch.isfinite(d).flatten(1).all(1)
    if not bool(finite.all()):
        raise ValueError(f"a sinogram needs finite entries; sample {int((~finite).nonzero()[0])} has NaN or inf.")
