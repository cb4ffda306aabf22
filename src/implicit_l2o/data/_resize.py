"""Images at another size by exact area weights, which keep every image's mean."""

import torch
from jaxtyping import Float
from torch import Tensor


def area_resize(images: Float[Tensor, "N H W"], size: int) -> Float[Tensor, "N size size"]:
    """Each new pixel is the mean over its area of the old image, taken as constant on each old pixel.

    PyTorch's `interpolate(mode="area")` takes the means over overlapping windows of whole pixels instead, which blurs where
    the sizes do not divide.

    Args:
        images: any number of them.
        size: new height and width.

    Example:
        >>> import torch
        >>> from implicit_l2o.data._resize import area_resize
        >>> area_resize(torch.tensor([[[0.0, 3.0, 3.0]] * 3]), 2)
        tensor([[[1., 3.],
                 [1., 3.]]])
    """
    height, width = images.shape[1:]
    if (height, width) == (size, size):
        return images
    rows, columns = _weights(height, size).to(images), _weights(width, size).to(images)
    return rows @ images @ columns.mT


def _weights(old: int, new: int) -> Float[Tensor, "new old"]:
    """Row `i`: which share of new cell `i` lies in each old cell; rows sum to 1."""
    edges = torch.arange(new + 1, dtype=torch.float64) * (old / new)
    cells = torch.arange(old, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], cells + 1) - torch.maximum(edges[:-1, None], cells)
    return overlap.clamp_min(0.0) * (new / old)
