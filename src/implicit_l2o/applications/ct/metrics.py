"""PSNR and SSIM for a data range of 1, computed image by image and then averaged; what is computed is torchmetrics'.

Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error visibility to structural similarity, IEEE
Transactions on Image Processing 13 (2004).
"""

from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

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
    return {
        "PSNR": PeakSignalNoiseRatio(data_range=1.0, dim=_IMAGE),
        "SSIM": StructuralSimilarityIndexMeasure(data_range=1.0, gaussian_kernel=False, kernel_size=_WINDOW),
    }


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
    found = structural_similarity_index_measure(
        x, target, data_range=1.0, gaussian_kernel=False, kernel_size=_WINDOW, reduction="none"
    )
    assert isinstance(found, Tensor)
    return found.reshape(len(x))
