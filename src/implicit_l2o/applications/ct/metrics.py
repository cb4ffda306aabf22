"""PSNR and SSIM for a data range of 1, computed image by image and then averaged.

SSIM as scikit-image has it, from which the published tables are: torchmetrics' map, without the border whose windows do not
lie inside the image. Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13 (2004).
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio

_IMAGE = (1, 2, 3)
_WINDOW = 7  # pixels along one side of SSIM's uniform window, scikit-image's default


def image_metrics() -> dict[str, Metric]:
    """Fresh metrics of images in [0, 1] by name; both are means over the images, whatever the batches were.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.metrics import image_metrics
        >>> metric = image_metrics()["PSNR"]
        >>> metric.update(torch.full((2, 1, 8, 8), 0.1), torch.zeros(2, 1, 8, 8))
        >>> metric.compute().round()
        tensor(20.)
    """
    return {"PSNR": PeakSignalNoiseRatio(data_range=1.0, dim=_IMAGE), "SSIM": StructuralSimilarity()}


def psnr(x: Float[Tensor, "B 1 H W"], target: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
    """`-10 log10(mean |x - target|^2)` of each image, in dB, so that methods can be paired by image.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.metrics import psnr
        >>> psnr(torch.full((1, 1, 8, 8), 0.1), torch.zeros(1, 1, 8, 8)).round()
        tensor([20.])
    """
    return peak_signal_noise_ratio(x, target, data_range=1.0, dim=_IMAGE, reduction="none")


def ssim(x: Float[Tensor, "B 1 H W"], target: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
    """Structural similarity of each image, uniform windows of 7x7 pixels that lie inside the image.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.metrics import ssim
        >>> image = torch.rand(1, 1, 16, 16)
        >>> ssim(image, image)
        tensor([1.])
    """
    _, pixels = structural_similarity_index_measure(
        x,
        target,
        data_range=1.0,
        gaussian_kernel=False,
        kernel_size=_WINDOW,
        reduction="none",
        return_full_image=True,
    )
    border = _WINDOW // 2
    return pixels[..., border:-border, border:-border].mean(_IMAGE)


@final
class StructuralSimilarity(Metric):
    """The mean of `ssim` over the images."""

    is_differentiable = True
    higher_is_better = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, x: Float[Tensor, "B 1 H W"], target: Float[Tensor, "B 1 H W"]) -> None:
        """Add a batch."""
        self.total += ssim(x, target).double().sum()
        self.count += len(x)

    def compute(self) -> Tensor:
        """The mean over everything added."""
        return (self.total / self.count).float()
