"""ASTRA's CPU projectors, linked to our memory."""

import weakref
from typing import Any

import astra  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from torch import Tensor


class AstraLines:
    """Line integrals along ASTRA's geometry and their transpose, one image after another.

    Args:
        projection: ASTRA's projection geometry.
        volume: ASTRA's volume geometry.
        kind: of the projector.
    """

    def __init__(self, projection: dict[str, Any], volume: dict[str, Any], kind: str) -> None:
        self.projection, self.volume = projection, volume
        self._projector = astra.create_projector(kind, projection, volume)
        weakref.finalize(self, astra.projector.delete, self._projector)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, n, n) -> (B, angles, bins)`."""
        angles = len(self.projection["ProjectionAngles"])
        images = _values(x)
        sinograms = np.zeros((len(images), angles, self.projection["DetectorCount"]), dtype=np.float32)
        for image, sinogram in zip(images, sinograms, strict=True):
            self._run("FP", image, sinogram, "VolumeDataId")
        return torch.from_numpy(sinograms).to(x)

    def transpose(self, y: Tensor) -> Tensor:
        """`(B, angles, bins) -> (B, 1, n, n)`."""
        sinograms = _values(y)
        size = (self.volume["GridRowCount"], self.volume["GridColCount"])
        images = np.zeros((len(sinograms), *size), dtype=np.float32)
        for image, sinogram in zip(images, sinograms, strict=True):
            self._run("BP", image, sinogram, "ReconstructionDataId")
        return torch.from_numpy(images).to(y)[:, None]

    def _run(self, algorithm: str, image: np.ndarray, sinogram: np.ndarray, name_of_image: str) -> None:
        volume = astra.data2d.link("-vol", self.volume, image)
        projection = astra.data2d.link("-sino", self.projection, sinogram)
        settings = astra.astra_dict(algorithm)
        settings |= {"ProjectorId": self._projector, name_of_image: volume, "ProjectionDataId": projection}
        run = astra.algorithm.create(settings)
        astra.algorithm.run(run)
        astra.algorithm.delete(run)
        astra.data2d.delete([volume, projection])


def _values(x: Tensor) -> np.ndarray:
    """`(B, ..., rows, columns)` as `(B, rows, columns)` in float32, one block of memory."""
    return x.detach().cpu().to(torch.float32).reshape(x.shape[0], *x.shape[-2:]).contiguous().numpy()
