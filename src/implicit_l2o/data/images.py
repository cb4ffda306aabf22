"""Labelled images: scikit-learn's handwritten digits (no download) and MNIST from the public hub's parquet files.

Sources: the 8x8 digits are the test half of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak,
1998); MNIST is LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998).
"""

import hashlib
import http.client
import io
import urllib.error
import urllib.request
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from implicit_l2o.data._files import atomic, cache_folder

HUB = "https://huggingface.co/datasets/ylecun/mnist/resolve/main"
SPLITS = ("train", "test")
CLASSES = 10

Split: TypeAlias = Literal["train", "test"]

_MNIST_SIDE = 28
# One record an image, so that images and labels share one file and one atomic rename.
_RECORD = np.dtype([("image", np.uint8, (_MNIST_SIDE, _MNIST_SIDE)), ("label", np.uint8)])


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Grey images with a class each, kept as the bytes they came as.

    Args:
        images: `(N, side, side)` intensities, `0` background to `peak` ink; may be memory-mapped.
        labels: `(N,)` classes `0..9`.
        peak: the intensity of full ink: 16 for the 8x8 digits, 255 for MNIST.

    Example:
        >>> from implicit_l2o.data.images import load_digits
        >>> digits = load_digits()
        >>> digits.images.shape, digits.peak
        ((1797, 8, 8), 16)
        >>> x, y = digits.tensors([0, 5])
        >>> x.shape, float(x.max()), y
        (torch.Size([2, 1, 8, 8]), 1.0, tensor([0, 5]))
    """

    images: UInt8[np.ndarray, "N side side"]
    labels: Int64[np.ndarray, " N"]
    peak: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Height and width in pixels."""
        return self.images.shape[-1]

    def tensors(
        self, index: Sequence[int] | np.ndarray | slice = slice(None)
    ) -> tuple[Float[Tensor, "M 1 side side"], Int64[Tensor, " M"]]:
        """The chosen images as float32 in [0, 1], one channel, and their labels."""
        images = torch.from_numpy(self.images[index].astype(np.float32) / self.peak)
        return images[:, None], torch.from_numpy(np.array(self.labels[index]))


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
    if split not in SPLITS:
        raise ValueError(f"MNIST has the splits 'train' and 'test'; got split={split!r}.")
    cache = cache_folder() if cache is None else Path(cache)
    name = f"mnist/{split}-00000-of-00001.parquet"
    source = _download(name, cache, progress) if folder is None else _find(Path(folder), name)

    stat = source.stat()
    key = hashlib.sha256(f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / f"mnist-{split}-{key}.npy"
    records = _read_cache(target)
    if records is None:
        records = _decode(source, progress)
        try:
            with atomic(target) as file:
                np.save(file, records)
        except OSError as error:
            warnings.warn(
                f"MNIST was decoded but could not be kept in {cache} ({error}); name a writable cache folder to avoid "
                "decoding it each time.",
                stacklevel=2,
            )
    return LabelledImages(records["image"], records["label"].astype(np.int64), peak=255)


def _find(folder: Path, name: str) -> Path:
    # The folder above `mnist/` is the documented one; the folder `mnist/` itself is what people also name.
    for path in (folder / name, folder / Path(name).name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"MNIST: no {name} in {folder}. The folder must hold it (public hub, ylecun/mnist); without a "
        "folder it is downloaded."
    )


def _read_cache(path: Path) -> np.ndarray | None:
    """The decoded records, memory-mapped; None when the file is absent, truncated or of another layout."""
    try:
        records = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return records if records.dtype == _RECORD and records.ndim == 1 and len(records) else None


def _decode(path: Path, progress: bool) -> np.ndarray:
    import pyarrow
    import pyarrow.parquet
    from tqdm import tqdm

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable parquet file ({error}); fetch it again.") from error
    columns = {field.name: field.type for field in table.schema}
    if not {"image", "label"} <= set(columns):
        raise ValueError(f"{path} needs the columns 'image' and 'label'; it has {sorted(columns)}.")
    image_type = columns["image"]
    is_struct = pyarrow.types.is_struct(image_type) and image_type.get_field_index("bytes") >= 0
    if not (is_struct and pyarrow.types.is_binary(image_type.field("bytes").type)):
        raise ValueError(f"{path}: column 'image' must be a struct with the binary field 'bytes'; it is {image_type}.")
    if not pyarrow.types.is_integer(columns["label"]):
        raise ValueError(f"{path}: column 'label' must be integers; it is {columns['label']}.")
    if table.num_rows == 0:
        raise ValueError(f"{path} has no rows.")

    records = np.empty(table.num_rows, _RECORD)
    encoded = [None if image is None else image["bytes"] for image in table["image"].to_pylist()]
    labels = table["label"].to_pylist()
    rows = tqdm(
        zip(encoded, labels, strict=True), f"decoding {path.name}", len(labels), disable=not progress, leave=False
    )
    for row, (data, label) in enumerate(rows):
        records["image"][row] = _decode_image(data, f"{path}, row {row}")
        if label is None or not 0 <= label < CLASSES:
            raise ValueError(f"{path}, row {row}: labels are 0 to {CLASSES - 1}; got {label}.")
        records["label"][row] = label
    return records


def _decode_image(data: bytes | None, where: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            mode, size = image.mode, image.size
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG chunk
        raise ValueError(f"{where}: the bytes are not an image ({error}).") from error
    if (mode, size) != ("L", (_MNIST_SIDE, _MNIST_SIDE)):
        raise ValueError(
            f"{where}: expected a grey (mode L) image of {_MNIST_SIDE}x{_MNIST_SIDE} pixels; got mode {mode}, "
            f"{size[0]}x{size[1]}."
        )
    return pixels


class _KeepLinked(urllib.request.HTTPRedirectHandler):
    """Remember the size and digest of the stored file, which the hub states on the redirect and not on the target."""

    linked: dict[str, str]

    def __init__(self) -> None:
        self.linked = {}

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        for name in ("X-Linked-Size", "X-Linked-ETag"):
            if headers.get(name):
                self.linked[name] = headers[name].strip('"')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(name: str, cache: Path, progress: bool) -> Path:
    """Fetch `name` from the hub into the cache unless it is there; the file appears only when complete."""
    from tqdm import tqdm

    target = cache / name
    if target.is_file():
        return target
    url = f"{HUB}/{name}"
    redirect = _KeepLinked()
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.build_opener(redirect).open(url, timeout=30) as response, atomic(target) as file:
            size = int(redirect.linked.get("X-Linked-Size") or response.headers.get("Content-Length") or 0)
            bar = tqdm(total=size or None, desc=f"downloading {name}", unit="B", unit_scale=True, disable=not progress)
            with bar:
                while chunk := response.read(1 << 18):
                    if not received and not chunk.startswith(b"PAR1"):  # a login page, say
                        raise ConnectionError("what came is not a parquet file")
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
            if size and received != size:
                raise ConnectionError(f"{received} bytes of {size} arrived")
            expected = redirect.linked.get("X-Linked-ETag", "")
            # The tag is a SHA-256 for files kept in large-file storage; 64 hexadecimal digits tell it from others.
            if len(expected) == 64 and digest.hexdigest() != expected:
                raise ConnectionError("its SHA-256 is not the one the hub states")
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"MNIST could not be downloaded from {url} ({reason}); give a folder (folder=) that holds {name}."
        ) from error
    return target
