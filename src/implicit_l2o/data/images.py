"""Labelled images: scikit-learn's handwritten digits (no download), MNIST, SVHN and CIFAR-10 of the public hub.

Sources: the 8x8 digits are the test half of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak,
1998); MNIST is LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998); SVHN is
Netzer, Wang, Coates, Bissacco, Wu and Ng, "Reading digits in natural images with unsupervised feature learning" (2011);
CIFAR-10 is Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from implicit_l2o.data._parquet_images import ImageSource, load_records

Split: TypeAlias = Literal["train", "test"]

_MNIST = ImageSource("MNIST", "ylecun/mnist", "mnist", "image", side=28, colours=1)
_SVHN = ImageSource("SVHN", "ufldl-stanford/svhn", "cropped_digits", "image", side=32, colours=3)
_CIFAR10 = ImageSource("CIFAR-10", "uoft-cs/cifar10", "plain_text", "img", side=32, colours=3)

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Grey or colour images with a class each, kept as the bytes they came as.

    Args:
        images: `(N, side, side)` or `(N, side, side, 3)` intensities, `0` none to `peak`; may be memory-mapped.
        labels: `(N,)` classes `0..9`.
        peak: the full intensity: 16 for the 8x8 digits, 255 for the others.

    Example:
        >>> from implicit_l2o.data.images import load_digits
        >>> digits = load_digits()
        >>> digits.images.shape, digits.peak
        ((1797, 8, 8), 16)
        >>> x, y = digits.tensors([0, 5])
        >>> x.shape, float(x.max()), y
        (torch.Size([2, 1, 8, 8]), 1.0, tensor([0, 5]))
    """

    images: UInt8[np.ndarray, "N side side *colours"]
    labels: Int64[np.ndarray, " N"]
    peak: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Height and width in pixels."""
        return self.images.shape[1]

    def tensors(
        self, index: Sequence[int] | np.ndarray | slice = slice(None)
    ) -> tuple[Float[Tensor, "M colours side side"], Int64[Tensor, " M"]]:
        """The chosen images as float32 in [0, 1], the colours before the sides, and their labels."""
        images, labels = self.bytes(index)
        return images.to(torch.float32) / self.peak, labels

    def bytes(
        self, index: Sequence[int] | np.ndarray | slice = slice(None)
    ) -> tuple[UInt8[Tensor, "M colours side side"], Int64[Tensor, " M"]]:
        """The chosen images in a quarter of the memory of `tensors`: as they are stored, `0` to `peak`.

        Example:
            >>> from implicit_l2o.data.images import load_digits
            >>> load_digits().bytes([0])[0].dtype
            torch.uint8
        """
        images = torch.from_numpy(np.array(self.images[index]))
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(np.array(self.labels[index]))


def load_digits() -> LabelledImages:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels of 17 grey levels, shipped with scikit-learn.

    Example:
        >>> from implicit_l2o.data.images import load_digits
        >>> len(load_digits())
        1797
    """
    from sklearn import datasets

    bunch: Any = datasets.load_digits()
    return LabelledImages(bunch.images.astype(np.uint8), bunch.target.astype(np.int64), peak=16)


def load_mnist(
    folder: str | Path | None = None, *, split: Split = "train", cache: str | Path | None = None, progress: bool = True
) -> LabelledImages:
    """MNIST, 60,000 training or 10,000 test digits of 28x28 pixels, from a folder or downloaded.

    The parquet file is decoded once into `cache` (a memory-mapped `.npy`, written to a temporary name and renamed, built
    again when it is truncated or when the source changed), so later calls return at once.

    Args:
        folder: holds `mnist/train-00000-of-00001.parquet` and `mnist/test-00000-of-00001.parquet` in the layout of the
            public hub's `ylecun/mnist` (columns `image {bytes, path}` and `label`). None downloads them into `cache`
            (18 MB), checked against the size and the SHA-256 which the hub states.
        split: `"train"` or `"test"`.
        cache: a writable folder; None is `implicit_l2o` in `$XDG_CACHE_HOME` or `~/.cache`.
        progress: show a bar while downloading and decoding.

    Raises:
        ValueError: unknown split; a file that is not parquet, lacks a column, or holds something else than 28x28 grey
            images with labels 0 to 9.
        FileNotFoundError: the folder does not hold the file.
        ConnectionError: no folder given and the download failed.

    Example:
        >>> from implicit_l2o.data.images import load_mnist
        >>> load_mnist("no/such/folder", split="test")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        FileNotFoundError: it names the file that is missing
    """
    return _labelled(load_records(_MNIST, folder, split, cache, progress))


def load_svhn(
    folder: str | Path | None = None, *, split: Split = "train", cache: str | Path | None = None, progress: bool = True
) -> LabelledImages:
    """The cropped house numbers of SVHN, 73,257 training or 26,032 test digits of 32x32 colour pixels; no extra set.

    Args:
        folder: holds `cropped_digits/train-00000-of-00001.parquet` and `cropped_digits/test-00000-of-00001.parquet` in the
            layout of the public hub's `ufldl-stanford/svhn` (columns `image {bytes, path}` and `label`). None downloads
            them into `cache`.
        split: as in `load_mnist`.
        cache: as in `load_mnist`.
        progress: as in `load_mnist`.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as `load_mnist`, for 32x32 colour images.

    Example:
        >>> from implicit_l2o.data.images import load_svhn
        >>> load_svhn("no/such/folder", split="test")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        FileNotFoundError: it names the file that is missing
    """
    return _labelled(load_records(_SVHN, folder, split, cache, progress))


def load_cifar10(
    folder: str | Path | None = None, *, split: Split = "train", cache: str | Path | None = None, progress: bool = True
) -> LabelledImages:
    """CIFAR-10, 50,000 training or 10,000 test photographs of 32x32 colour pixels in `CIFAR10_CLASSES`.

    Args:
        folder: holds `plain_text/train-00000-of-00001.parquet` and `plain_text/test-00000-of-00001.parquet` in the layout of
            the public hub's `uoft-cs/cifar10` (columns `img {bytes, path}` and `label`). None downloads them into `cache`.
        split: as in `load_mnist`.
        cache: as in `load_mnist`.
        progress: as in `load_mnist`.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as `load_mnist`, for 32x32 colour images.

    Example:
        >>> from implicit_l2o.data.images import load_cifar10
        >>> load_cifar10("no/such/folder", split="test")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        FileNotFoundError: it names the file that is missing
    """
    return _labelled(load_records(_CIFAR10, folder, split, cache, progress))


def _labelled(records: np.ndarray) -> LabelledImages:
    return LabelledImages(records["image"], records["label"].astype(np.int64), peak=255)
