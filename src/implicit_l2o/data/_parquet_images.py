"""Labelled images in the public hub's parquet layout, decoded once into a memory-mapped array of bytes."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from implicit_l2o.data._files import atomic, cache_folder, check_claim, naming
from implicit_l2o.data._hub import download

SPLITS = ("train", "test")
CLASSES = 10
_FORMATS = ("PNG", "JPEG")  # the hub's; Pillow would try some forty others


@dataclass(frozen=True)
class ImageSource:
    """Where the images of a data set are, and what they are.

    Args:
        name: of the data set, as messages have it.
        repository: on the hub.
        folder: of the files in the repository; `{folder}/{split}-00000-of-00001.parquet`.
        column: of the images, a struct with the field `bytes`.
        side: height and width, pixels.
        colours: 1 for grey images, 3 for colour.
    """

    name: str
    repository: str
    folder: str
    column: str
    side: int
    colours: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one decoded image: the colours last, as images are stored."""
        return (self.side, self.side) if self.colours == 1 else (self.side, self.side, self.colours)

    @property
    def record(self) -> np.dtype:
        """One record an image, so that images and labels share one file and one atomic rename."""
        return np.dtype([("image", np.uint8, self.shape), ("label", np.uint8)])

    def file(self, split: str) -> str:
        """The file of a split in the repository."""
        return f"{self.folder}/{split}-00000-of-00001.parquet"


def load_records(
    source: ImageSource, folder: str | Path | None, split: str, cache: str | Path | None, progress: bool
) -> np.ndarray:
    """The split's records, memory-mapped where the cache holds them; see `load_mnist`."""
    if split not in SPLITS:
        raise ValueError(f"{source.name} has the splits 'train' and 'test'; got split={split!r}.")
    cache = cache_folder() if cache is None else Path(cache)
    name = source.file(split)
    stored = Path(source.repository).name
    if folder is None:
        target = cache / name if source.folder == stored else cache / stored / name
        path = download(source.repository, name, target, what=source.name, progress=progress)
    else:
        path = _find(source, Path(folder), name)

    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / f"{stored}-{split}-{key}.npy"
    records = _read_cache(target, source.record)
    if records is None:
        records = _decode(path, source, progress)
        try:
            with atomic(target) as file:
                np.save(file, records)
        except OSError as error:
            warnings.warn(
                f"{source.name} was decoded but could not be kept in {cache} ({error}); name a writable cache folder to "
                "avoid decoding it each time.",
                stacklevel=3,
            )
    return records


def _find(source: ImageSource, folder: Path, name: str) -> Path:
    # The folder above is the documented one; the folder of the files itself is what people also name.
    for path in (folder / name, folder / Path(name).name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{source.name}: no {name} in {folder}. The folder must hold it (public hub, {source.repository}); without a "
        "folder it is downloaded."
    )


def _read_cache(path: Path, record: np.dtype) -> np.ndarray | None:
    """The decoded records, memory-mapped; None when the file is absent, truncated or of another layout."""
    try:
        records = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return records if records.dtype == record and records.ndim == 1 and len(records) else None


def _decode(path: Path, source: ImageSource, progress: bool) -> np.ndarray:
    from tqdm import tqdm

    table = _read_table(path, source)
    records = np.empty(table.num_rows, source.record)
    rows = tqdm(_rows(table, source.column), f"decoding {path.name}", table.num_rows, disable=not progress, leave=False)
    for row, (data, label) in enumerate(rows):
        records["image"][row] = _decode_image(data, source, f"{path}, row {row}")
        if label is None or not 0 <= label < CLASSES:
            raise ValueError(f"{path}, row {row}: labels are 0 to {CLASSES - 1}; got {label}.")
        records["label"][row] = label
    return records


def _read_table(path: Path, source: ImageSource) -> Any:
    """The two columns, their types checked."""
    import pyarrow
    import pyarrow.parquet

    with naming(path, " is not a readable parquet file", "; fetch it again"), pyarrow.parquet.ParquetFile(path) as file:
        _check_layout(path, {field.name: field.type for field in file.schema_arrow}, source)
        check_claim(path, file.metadata.num_rows * source.record.itemsize)
        if file.metadata.num_rows == 0:
            raise ValueError(f"{path} has no rows.")
        return file.read(columns=[source.column, "label"])


def _check_layout(path: Path, columns: dict[str, Any], source: ImageSource) -> None:
    import pyarrow

    if not {source.column, "label"} <= set(columns):
        raise ValueError(f"{path} needs the columns '{source.column}' and 'label'; it has {sorted(columns)}.")
    image_type = columns[source.column]
    is_struct = pyarrow.types.is_struct(image_type) and image_type.get_field_index("bytes") >= 0
    if not (is_struct and pyarrow.types.is_binary(image_type.field("bytes").type)):
        raise ValueError(
            f"{path}: column '{source.column}' must be a struct with the binary field 'bytes'; it is {image_type}."
        )
    if not pyarrow.types.is_integer(columns["label"]):
        raise ValueError(f"{path}: column 'label' must be integers; it is {columns['label']}.")


def _rows(table: Any, column: str) -> Iterator[tuple[bytes | None, int | None]]:
    """The encoded images with their labels, some rows in Python at a time."""
    for batch in table.select([column, "label"]).to_batches(max_chunksize=1000):
        images, labels = (batch.column(name).to_pylist() for name in (column, "label"))
        for image, label in zip(images, labels, strict=True):
            yield (None if image is None else image["bytes"]), label


def _decode_image(data: bytes | None, source: ImageSource, where: str) -> np.ndarray:
    from PIL import Image

    wanted, kind = ("L", "grey") if source.colours == 1 else ("RGB", "colour")
    try:
        with Image.open(io.BytesIO(data or b""), formats=_FORMATS) as image:
            mode, size = image.mode, image.size
            fits = (mode, size) == (wanted, (source.side, source.side))  # before the pixels are made room for
            pixels = np.asarray(image) if fits else None
    except Exception as error:  # whatever broken bytes provoke in Pillow
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{where}: the bytes are not an image ({reason}).") from error
    if pixels is None:
        raise ValueError(
            f"{where}: expected a {kind} (mode {wanted}) image of {source.side}x{source.side} pixels; got mode {mode}, "
            f"{size[0]}x{size[1]}."
        )
    return pixels
