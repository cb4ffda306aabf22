"""Axial CT slices from DICOM and NIfTI files, in Hounsfield units and as attenuation.

Formats: DICOM PS3.3, CT Image Module (rescale slope and intercept); the NIfTI-1 standard. Both are brought to the
orientation in which radiologists look at a slice: rows run from front to back, columns from the patient's right to the left.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.data._files import check_claim, naming
from implicit_l2o.data._resize import area_resize
from implicit_l2o.data.lodopab import MU_MAX
from implicit_l2o.physics import WATER, UnitRange, from_hounsfield

_AIR_HOUNSFIELD = -1000.0


@dataclass(frozen=True, eq=False)
class Slices:
    """Axial slices, from the feet to the head.

    Args:
        hounsfield: `(N, H, W)` in Hounsfield units: -1000 air, 0 water, above 300 bone.
        spacing: distance of two rows and of two columns, mm.

    Raises:
        ValueError: there is no slice, a value is not finite, or the spacing is not positive.

    Example:
        >>> import torch
        >>> from implicit_l2o.data.slices import Slices
        >>> slices = Slices(torch.tensor([[[-1000.0, 0.0], [0.0, 1000.0]]]), (1.0, 1.0))
        >>> slices.attenuation()
        tensor([[[0.0000, 0.2000],
                 [0.2000, 0.4000]]])
        >>> slices.images(2).shape
        torch.Size([1, 1, 2, 2])
    """

    hounsfield: Float[Tensor, "N H W"]
    spacing: tuple[float, float]

    def __post_init__(self) -> None:
        if not self.hounsfield.numel():
            raise ValueError(f"Slices needs at least one slice; got shape {tuple(self.hounsfield.shape)}.")
        broken = int((~torch.isfinite(self.hounsfield)).sum())
        if broken:
            raise ValueError(f"Slices: {broken} values are NaN or infinite.")
        if not all(0 < length < math.inf for length in self.spacing):
            raise ValueError(f"Slices needs a positive spacing in mm; got spacing={self.spacing}.")

    def __len__(self) -> int:
        return len(self.hounsfield)

    def attenuation(self, *, water: float = WATER) -> Float[Tensor, "N H W"]:
        """Linear attenuation in the unit of `water`, at least 0 (see `implicit_l2o.physics.from_hounsfield`).

        Args:
            water: attenuation of water; by default in 1/cm.

        Raises:
            ValueError: `water` is not positive and finite.
        """
        return from_hounsfield(self.hounsfield, water).clamp_min(0.0)

    def images(self, size: int, *, mu_max: float = MU_MAX, water: float = WATER) -> Float[Tensor, "N 1 size size"]:
        """Attenuation as a share of `mu_max`, in [0, 1], brought to another size by exact areas.

        The default is LoDoPaB-CT's, which differs by less than 0.02 / 81 from its values: it gives air an attenuation.

        Args:
            size: height and width; the largest centred square of the slices is taken.
            mu_max: attenuation that becomes 1, in the unit of `water`; what is above is cut off.
            water: attenuation of water; by default in 1/cm.

        Raises:
            ValueError: a size below 1, or `mu_max` or `water` not positive and finite.
        """
        if size < 1:
            raise ValueError(f"images needs size >= 1; got size={size}.")
        if not 0 < mu_max < math.inf:
            raise ValueError(f"images needs mu_max > 0; got mu_max={mu_max}.")
        height, width = self.hounsfield.shape[1:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        share = UnitRange(0.0, mu_max)(self.attenuation(water=water)).clamp_max(1.0)
        return area_resize(share[:, top : top + side, left : left + side], size)[:, None].clamp(0.0, 1.0)


def read_dicom(path: str | Path) -> Slices:
    """One DICOM file, or a folder that holds one series of axial slices, sorted from the feet to the head.

    Args:
        path: a file, or a folder whose files are all read (hidden ones apart).

    Raises:
        FileNotFoundError: there is nothing at `path`, or the folder is empty.
        ValueError: a file is not DICOM, is truncated, holds no CT image of one frame, or lacks the rescaling or the spacing;
            the slices differ in size, spacing, orientation or series; they are not axial.
        ModuleNotFoundError: pydicom is not installed.

    Example:
        >>> from implicit_l2o.data.slices import read_dicom
        >>> read_dicom("no/such/series")
        Traceback (most recent call last):
        ...
        FileNotFoundError: DICOM: there is no file or folder no/such/series.
    """
    path = Path(path)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    else:
        raise FileNotFoundError(f"DICOM: there is no file or folder {path}.")
    if not files:
        raise FileNotFoundError(f"DICOM: the folder {path} holds no file.")
    found = [_read_dicom(file) for file in files]
    first = found[0]
    for file, other in zip(files, found, strict=True):
        for name in ("series", "shape", "spacing", "orientation"):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(
                    f"DICOM: the files of a folder must be one series; {file} has {name} {getattr(other, name)}, "
                    f"{files[0].name} {getattr(first, name)}."
                )
    found.sort(key=lambda image: image.height)
    with naming(path, " holds no CT slices"):
        return Slices(torch.from_numpy(np.stack([image.hounsfield for image in found])), first.spacing)


@dataclass(frozen=True, eq=False)
class _Image:
    hounsfield: np.ndarray
    shape: tuple[int, ...]
    spacing: tuple[float, float]
    orientation: tuple[float, ...]
    series: str
    height: float  # along the patient, mm


def _read_dicom(file: Path) -> _Image:
    try:
        from pydicom import dcmread  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "DICOM files need pydicom: pip install 'implicit_l2o[ct]'.", name="pydicom"
        ) from error
    with warnings.catch_warnings():  # a damaged file has one for every value that the standard does not permit
        warnings.simplefilter("ignore")
        with naming(file, " is no readable DICOM file"):
            return _image(dcmread(file), file)


def _image(dataset: Any, file: Path) -> _Image:
    """What is needed of a CT slice."""
    needed = ("Modality", "PixelData", "Rows", "Columns", "RescaleSlope", "RescaleIntercept", "PixelSpacing")
    absent = [name for name in needed if name not in dataset]
    if absent:
        raise ValueError(f"{file}: a CT slice has {', '.join(needed)}; this file lacks {', '.join(absent)}.")
    if dataset.Modality != "CT":
        raise ValueError(f"{file}: Hounsfield units are of CT; its modality is {dataset.Modality}.")
    check_claim(file, int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1) * 2)
    with naming(file, ": its pixels cannot be read"):
        stored = np.asarray(dataset.pixel_array)
    if stored.ndim != 2:
        raise ValueError(f"{file}: one grey slice is read from a file; it holds an array of shape {stored.shape}.")
    orientation = tuple(
        round(float(cosine), 3) for cosine in dataset.get("ImageOrientationPatient", (1, 0, 0, 0, 1, 0))
    )
    if orientation != (1, 0, 0, 0, 1, 0):
        raise ValueError(f"{file}: the slice must be axial and upright; its orientation is {orientation}.")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        hounsfield = stored.astype(np.float32) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    if "PixelPaddingValue" in dataset:  # outside the scanner's field of view nothing was measured
        hounsfield[stored == dataset.PixelPaddingValue] = _AIR_HOUNSFIELD
    position = dataset.get("ImagePositionPatient")
    spacing = tuple(float(length) for length in dataset.PixelSpacing)
    return _Image(
        hounsfield=hounsfield.astype(np.float32),
        shape=stored.shape,
        spacing=(spacing[0], spacing[1]),
        orientation=orientation,
        series=str(dataset.get("SeriesInstanceUID", "")),
        height=float(position[2] if position is not None else dataset.get("InstanceNumber") or 0),
    )


def read_nifti(path: str | Path, *, slices: Sequence[int] | None = None) -> Slices:
    """Axial slices of a NIfTI volume in Hounsfield units; of an uncompressed file only those asked for are read.

    Args:
        path: a `.nii` or `.nii.gz` file of three dimensions.
        slices: indices from the feet to the head, in any order; None for all.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the file is not NIfTI, damaged or truncated, or not of three dimensions.
        IndexError: an index is out of range.
        ModuleNotFoundError: nibabel is not installed.

    Example:
        >>> from implicit_l2o.data.slices import read_nifti
        >>> read_nifti("no/such/volume.nii.gz")
        Traceback (most recent call last):
        ...
        FileNotFoundError: NIfTI: there is no file no/such/volume.nii.gz.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"NIfTI: there is no file {path}.")
    try:
        import nibabel  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "NIfTI files need nibabel: pip install 'implicit_l2o[ct]'.", name="nibabel"
        ) from error
    with naming(path, " is damaged, truncated or no NIfTI file"):
        image: Any = nibabel.load(path)
        if len(image.shape) != 3:
            raise ValueError(f"{path}: a volume has 3 dimensions; it has the shape {image.shape}.")
        check_claim(path, math.prod(image.shape) * image.get_data_dtype().itemsize)
        if not np.isfinite(image.affine).all():
            raise ValueError(f"{path}: where its axes point to is not finite.")
        axes = _Axes.of(nibabel.io_orientation(image.affine))
    depth = image.shape[axes.head]
    at = list(range(depth)) if slices is None else list(slices)
    outside = [index for index in at if not 0 <= index < depth]
    if outside:
        raise IndexError(f"{path} has the slices 0 to {depth - 1}; got index {outside[0]}.")
    with naming(path, " is damaged or truncated"), np.errstate(over="ignore", invalid="ignore"):
        seen = np.stack([axes.slice(image.dataobj, index, depth) for index in at])
        lengths = image.header.get_zooms()
        return Slices(torch.from_numpy(seen), (float(lengths[axes.front]), float(lengths[axes.right])))


@dataclass(frozen=True)
class _Axes:
    """Which axes of a volume point to the patient's right or left, front or back, head or feet, and which way."""

    right: int
    front: int
    head: int
    direction: tuple[float, ...]  # of each axis: 1 to the right, the front, the head; -1 away from them

    @classmethod
    def of(cls, orientation: Float[np.ndarray, "3 2"]) -> "_Axes":
        to = orientation[:, 0].tolist()
        return cls(to.index(0), to.index(1), to.index(2), tuple(orientation[:, 1].tolist()))

    def slice(self, volume: Any, index: int, depth: int) -> Float[np.ndarray, "H W"]:
        """Slice `index` from the feet, front on top, the patient's right on the left; nothing else is read."""
        at: list[Any] = [slice(None)] * 3
        at[self.head] = index if self.direction[self.head] > 0 else depth - 1 - index
        image = np.asarray(volume[tuple(at)], dtype=np.float32)
        image = image.T if self.right < self.front else image
        rows = slice(None, None, -1 if self.direction[self.front] > 0 else 1)
        columns = slice(None, None, -1 if self.direction[self.right] > 0 else 1)
        return np.ascontiguousarray(image[rows, columns])
