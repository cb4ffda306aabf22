"""The colour images; the grey ones are `DigitsData` and `MnistData` of `applications.digits`."""

import sys
from typing import final

import numpy as np
from torch import Tensor

from implicit_l2o.applications.digits.data import AbstractHubData
from implicit_l2o.data.images import LabelledImages, Split, load_cifar10, load_svhn


@final
class Cifar10Data(AbstractHubData):
    """CIFAR-10: 45,000 / 5,000 of the training images, stratified, drawn by the seed, and the standard 10,000 test images.

    The options are those of `AbstractHubData`, the files those of `implicit_l2o.data.images.load_cifar10`. The images stay
    bytes until the network reads them: a quarter of the memory.
    """

    def images(self, split: Split) -> LabelledImages:
        """See `AbstractHubData`."""
        return load_cifar10(self.folder, split=split, progress=sys.stderr.isatty())

    def tensors(self, images: LabelledImages, index: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        """Bytes."""
        return images.bytes(index)


@final
class SvhnData(AbstractHubData):
    """SVHN: 68,257 / 5,000 of the training images, stratified, drawn by the seed, and the standard 26,032 test images.

    The options are those of `AbstractHubData`, the files those of `implicit_l2o.data.images.load_svhn`, as bytes. The extra
    set is not used.
    """

    def images(self, split: Split) -> LabelledImages:
        """See `AbstractHubData`."""
        return load_svhn(self.folder, split=split, progress=sys.stderr.isatty())

    def tensors(self, images: LabelledImages, index: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        """Bytes."""
        return images.bytes(index)
