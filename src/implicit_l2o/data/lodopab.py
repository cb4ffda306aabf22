"""Ground truth slices of LoDoPaB-CT, read from its HDF5 files as they are asked for.

Source: Leuschner, Schmidt, Baguer and Maass, "LoDoPaB-CT, a benchmark dataset for low-dose computed tomography
reconstruction", Scientific Data 8 (2021), https://zenodo.org/records/3384092. The observations are not read: they belong to
1000 angles, and those of fewer angles are simulated by the application.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.data._files import naming
from implicit_l2o.data._resize import area_resize

Part: TypeAlias = Literal["train", "validation", "test"]

COUNTS: dict[str, int] = {"train": 35_820, "validation": 3_522, "test": 3_553}
"""Slices in each part."""

SIDE = 362
"""Height and width of a slice in pixels, over a square of 26 cm."""

PER_FILE = 128
"""Slices in a file; the last file of a part holds what is left."""

MU_MAX = 0.8135858
"""Attenuation in 1/cm that the value 1 stands for, that of 3071 HU: `mu = MU_MAX * image`."""


@dataclass(frozen=True)
class LodopabSlices:
    """The slices of one part, lazily: no more than one file's worth is in memory besides what is returned.

    Args:
        folder: holds `ground_truth_PART_000.hdf5` and so on, or the folders `ground_truth_PART` that the published zip
            archives unpack to.
        part: `"train"`, `"validation"` or `"test"`.
        size: height and width of the returned images; below 362 by exact area weights.
        count: the first so many slices alone, so that their files suffice; None for all.

    Raises:
        ValueError: an unknown part, a size outside 1 to 362, a count outside 1 to the part's.
        FileNotFoundError: a file that holds some of the slices is absent.

    Example:
        >>> from implicit_l2o.data.lodopab import LodopabSlices
        >>> LodopabSlices("no/such/folder", part="test")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        FileNotFoundError: it names the folder and the first file that is missing
    """

    folder: str | Path
    part: Part
    size: int = 128
    count: int | None = None

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ValueError(f"LoDoPaB-CT has the parts {', '.join(map(repr, COUNTS))}; got part={self.part!r}.")
        if not 1 <= self.size <= SIDE:
            raise ValueError(f"LodopabSlices needs 1 <= size <= {SIDE}; got size={self.size}.")
        if self.count is not None and not 1 <= self.count <= COUNTS[self.part]:
            raise ValueError(f"the part {self.part!r} has 1 to {COUNTS[self.part]} slices; got count={self.count}.")
        needed = range((len(self) - 1) // PER_FILE + 1)
        missing = [file for file in needed if self._path(file) is None]
        if missing:
            raise FileNotFoundError(
                f"LoDoPaB-CT: {len(missing)} of {len(needed)} files are missing in {self.folder}, the first is "
                f"{self._name(missing[0])}. Unpack ground_truth_{self.part}.zip there, or ask for fewer slices (count=)."
            )

    def __len__(self) -> int:
        return COUNTS[self.part] if self.count is None else self.count

    def __getitem__(self, index: int) -> Float[Tensor, "1 size size"]:
        """One slice, attenuation in [0, 1]."""
        return self.read([index])[0]

    def read(self, indices: Sequence[int], *, progress: bool = False) -> Float[Tensor, "N 1 size size"]:
        """The slices of these indices in their order, attenuation in [0, 1] (see `MU_MAX`), float32.

        Args:
            indices: 0 to `len(self) - 1`, any number of times.
            progress: show a bar.

        Raises:
            IndexError: an index is out of range.
            ValueError: a file is damaged, truncated, or not of LoDoPaB-CT's layout.
        """
        from tqdm import tqdm

        at = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = at[(at < 0) | (at >= len(self))]
        if len(outside):
            raise IndexError(f"the slices are 0 to {len(self) - 1}; got index {outside[0]}.")
        images = torch.empty(len(at), 1, self.size, self.size)
        files = np.unique(at // PER_FILE).tolist()
        for file in tqdm(files, f"LoDoPaB-CT {self.part}", unit="file", leave=False, disable=not progress):
            places = np.flatnonzero(at // PER_FILE == file)
            rows, inverse = np.unique(at[places] % PER_FILE, return_inverse=True)
            images[places, 0] = area_resize(self._rows(file, rows), self.size)[inverse]
        return images

    def _rows(self, file: int, rows: np.ndarray) -> Float[Tensor, "rows 362 362"]:
        """Some slices of a file as they are stored, checked."""
        h5py = _h5py()
        path = self._path(file)
        if path is None:
            raise FileNotFoundError(f"LoDoPaB-CT: {self._name(file)} was in {self.folder} and is there no more.")
        with naming(path, " is damaged or truncated", "; fetch it again"), h5py.File(path, "r") as archive:
            self._check_layout(archive, path, file)
            slices = archive["data"][rows]  # HDF5 wants ascending indices, each once
        if not np.isfinite(slices).all() or slices.min() < 0 or slices.max() > 1:
            raise ValueError(
                f"{path}: ground truth lies in [0, 1]; got values from {slices.min():.6g} to {slices.max():.6g}."
            )
        return torch.from_numpy(slices.astype(np.float32, copy=False))

    def _check_layout(self, archive: Any, path: Path, file: int) -> None:
        """One dataset `data` of as many slices as the part has in this file."""
        h5py = _h5py()
        if not isinstance(archive.get("data"), h5py.Dataset):
            raise ValueError(f"{path} needs the dataset 'data'; it has {sorted(archive)}.")
        data = archive["data"]
        held = min(PER_FILE, COUNTS[self.part] - file * PER_FILE)
        if data.dtype.kind != "f" or data.ndim != 3 or data.shape[1:] != (SIDE, SIDE):
            raise ValueError(
                f"{path}: 'data' must be floating point of shape (slices, {SIDE}, {SIDE}); it is {data.dtype} of shape "
                f"{data.shape}."
            )
        if data.chunks is not None and math.prod(data.chunks) > PER_FILE * SIDE**2:  # one is read as a whole
            raise ValueError(f"{path}: 'data' is stored in parts of {data.chunks}, more than a file has.")
        # Files of fewer slices are legal where those of `count` are in them, so that a cut of the data can be kept.
        held = min(held, len(self) - file * PER_FILE)
        if not held <= data.shape[0] <= PER_FILE:
            raise ValueError(f"{path}: 'data' must hold {held} to {PER_FILE} slices; it holds {data.shape[0]}.")

    def _name(self, file: int) -> str:
        return f"ground_truth_{self.part}_{file:03d}.hdf5"

    def _path(self, file: int) -> Path | None:
        folder = Path(self.folder)
        for path in (folder / self._name(file), folder / f"ground_truth_{self.part}" / self._name(file)):
            if path.is_file():
                return path
        return None


def _h5py() -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "LoDoPaB-CT's files are HDF5, which needs h5py: pip install 'implicit_l2o[ct]'.", name="h5py"
        ) from error
    return h5py
