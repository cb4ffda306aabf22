"""What all reconstructions share: the scanner, what a sinogram has to look like, the loss, the metrics, the panels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric

import implicit_l2o as il2o
from implicit_l2o.applications.ct import figures
from implicit_l2o.applications.ct.metrics import image_metrics, psnr, ssim
from implicit_l2o.applications.ct.scanning import check_sinogram as check_sinogram
from implicit_l2o.applications.ct.scanning import scanner as scanner
from implicit_l2o.physics import Projector
from implicit_l2o.training import AbstractTask, Optimization

_FLOOR = 1e-6  # of a squared error in the loss: 60 dB


class ReconstructionTask(AbstractTask, ABC):
    """A map from sinograms `d` to images `x` in [0, 1], measured by PSNR and SSIM; a subclass says `infer`.

    Args:
        model: the learned part, any module.
        size: pixels along one side of an image.
        angles: views of a sinogram, spread evenly over half a turn.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self, model: nn.Module, *, size: int = 64, angles: int = 30, optimization: Optimization | None = None
    ) -> None:
        super().__init__(model, optimization=optimization)
        self.projector = scanner(size, angles)

    @abstractmethod
    def infer(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """The images as `x`, and the sinograms as `data`."""

    def check_sinogram(self, d: Tensor) -> None:
        """Raise a `ValueError` that names the geometry unless `d` is a batch of this scanner's sinograms, finite.

        A sample that is not finite has to be refused: there is no solve that could give it a status of its own.
        """
        check_sinogram(d, self.projector)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The mean over the images of `log10` of their mean squared error: what PSNR averages, for every method alike."""
        error = (inference.x - batch[1]).square().flatten(1).mean(1)
        return (error + _FLOOR).log10().mean()

    def metrics(self) -> Mapping[str, Metric]:
        """PSNR in dB and SSIM, means over the images."""
        return image_metrics()

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"] | None:
        """The mean squared error of each image."""
        if len(batch) < 2:
            return None
        return (self.answer(inference) - batch[1]).square().flatten(1).mean(1)

    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """Truth, reconstruction, signed error and the sinogram's residual, with PSNR and SSIM."""
        draw_reconstruction(figure, sample, self.projector)


def draw_reconstruction(figure: Figure, sample: Mapping[str, Tensor], projector: Projector) -> None:
    """Draw one reconstruction: truth and answer under one grey window, signed error, and `A x - d`.

    Args:
        figure: empty.
        sample: `"inputs"` the sinogram, `"answer"` the image and, where known, `"target"`, without the batch dimension.
        projector: the scanner.
    """
    x, d, truth = sample["answer"].cpu(), sample["inputs"].cpu(), sample.get("target")
    misfit = projector.apply(x[None])[0] - d
    scores = (
        "" if truth is None else f"{float(psnr(x[None], truth[None])):.2f} dB / {float(ssim(x[None], truth[None])):.3f}"
    )
    relative = float(misfit.norm() / d.norm().clamp_min(torch.finfo(d.dtype).tiny))
    figures.reconstruction(figure, x, truth=truth, misfit=misfit, relative=relative, scores=scores)
