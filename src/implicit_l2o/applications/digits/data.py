"""The digit images: scikit-learn's, which need no download, and MNIST."""

import errno
import sys
from abc import abstractmethod
from typing import final

import numpy as np
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import TensorDataset

from implicit_l2o.data.images import LabelledImages, Split, load_digits, load_mnist
from implicit_l2o.training import AbstractData, Splits

_DIGITS_HELD_OUT, _HUB_HELD_OUT = 300, 5000


@final
class DigitsData(AbstractData):
    """scikit-learn's 1,797 digits of 8x8 pixels as 1,197 / 300 / 300 images, stratified by class, drawn by the run's seed.

    Args:
        batch_size: see `AbstractData`, as for the others.
        evaluation_batch: images at once without training.
        workers: processes that fetch batches.
        seed: of the splits and of the order; None takes the run's.

    Example:
        >>> from implicit_l2o.applications.digits.data import DigitsData
        >>> splits = DigitsData(seed=0).splits
        >>> len(splits.train), len(splits.validation), len(splits.test)
        (1197, 300, 300)
    """

    def __init__(
        self, *, batch_size: int = 64, evaluation_batch: int = 500, workers: int = 0, seed: int | None = None
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, workers=workers, seed=seed)

    def load(self) -> Splits:
        """Intensities in [0, 1] and labels."""
        digits = load_digits()
        rest, test = _split(digits, np.arange(len(digits)), _DIGITS_HELD_OUT, self.run_seed)
        train, validation = _split(digits, rest, _DIGITS_HELD_OUT, self.run_seed)
        return Splits(*(TensorDataset(*digits.tensors(index)) for index in (train, validation, test)))


class AbstractHubData(AbstractData):
    """A data set of the public hub: 5,000 of the training images for validation, stratified, and the standard test images.

    Args:
        folder: holds the parquet files as the data set's loader wants them; None downloads them, once.
        batch_size: see `AbstractData`, as for the others.
        evaluation_batch: images at once without training.
        workers: processes that fetch batches.
        seed: of the split and of the order; None takes the run's.
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        batch_size: int = 200,
        evaluation_batch: int = 500,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, workers=workers, seed=seed)
        self.folder = folder

    @abstractmethod
    def images(self, split: Split) -> LabelledImages:
        """The images of a split of the hub's, from the folder."""

    @abstractmethod
    def tensors(self, images: LabelledImages, index: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        """Those that the index chooses, as the model takes them, and their labels."""

    @final
    def prepare_data(self) -> None:
        """Download and decode, on one process.

        Raises:
            OSError: the folder does not hold the files, one is broken, or they could not be downloaded.
        """
        try:
            for split in ("train", "test"):
                self.images(split)
        except ConnectionError as error:
            raise ConnectionError(f"{error} The key is data.init_args.folder") from error
        except (FileNotFoundError, ValueError) as error:
            # With the folder as its file name: the command then names the key that holds it.
            raise OSError(errno.ENOENT, str(error).rstrip("."), self.folder) from error

    @final
    def load(self) -> Splits:
        """Images and labels."""
        images, test = self.images("train"), self.images("test")
        train, validation = _split(images, np.arange(len(images)), _HUB_HELD_OUT, self.run_seed)
        parts = ((images, train), (images, validation), (test, slice(None)))
        return Splits(*(TensorDataset(*self.tensors(*part)) for part in parts))


@final
class MnistData(AbstractHubData):
    """MNIST: 55,000 / 5,000 of the training images, stratified, drawn by the seed, and the standard 10,000 test images.

    The options are those of `AbstractHubData`, the files those of `implicit_l2o.data.images.load_mnist`.
    """

    def images(self, split: Split) -> LabelledImages:
        """See `AbstractHubData`."""
        return load_mnist(self.folder, split=split, progress=sys.stderr.isatty())

    def tensors(self, images: LabelledImages, index: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        """Intensities in [0, 1]."""
        return images.tensors(index)


def _split(images: LabelledImages, index: np.ndarray, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rest, and `held_out` of the images in `index` with the same shares of classes."""
    rest, out = train_test_split(index, test_size=held_out, stratify=images.labels[index], random_state=seed)
    return np.asarray(rest), np.asarray(out)
