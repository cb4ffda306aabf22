"""The LoDoPaB-CT reader on small files of that layout: right slices, bounded memory, and what broken files say."""

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from implicit_l2o.data import lodopab
from implicit_l2o.data._resize import area_resize
from implicit_l2o.data.lodopab import SIDE, LodopabSlices

h5py: Any = pytest.importorskip("h5py", reason="h5py reads and writes the files of LoDoPaB-CT; it is not installed")


def image(index: int) -> np.ndarray:
    """A slice that tells its index, with a ramp so that neither flips nor transpositions pass."""
    ramp = np.linspace(0.0, 0.5, SIDE, dtype=np.float32)
    return (0.4 * ramp[:, None] + 0.2 * ramp[None, :] + 0.005 * index).astype(np.float32)


def write(folder: Path, part: str = "validation", *, file: int = 0, held: int = 128, rows: dict[int, int]) -> Path:
    """A file of `held` slices, of which `rows` are written (place in the file: index); the others take no space."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ground_truth_{part}_{file:03d}.hdf5"
    with h5py.File(path, "w") as archive:
        data = archive.create_dataset("data", (held, SIDE, SIDE), np.float32, chunks=(1, SIDE, SIDE))
        for place, index in rows.items():
            data[place] = image(index)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, rows={0: 0, 5: 5, 127: 127})
    write(tmp_path, file=1, rows={0: 128, 3: 131})
    return tmp_path


def test_slices_come_from_the_right_files_in_the_asked_order(folder: Path) -> None:
    slices = LodopabSlices(folder, "validation", size=SIDE, count=256)
    assert len(slices) == 256
    asked = [131, 0, 127, 128, 5, 0]
    read = slices.read(asked)
    assert read.dtype == torch.float32
    for found, index in zip(read, asked, strict=True):
        assert np.array_equal(found[0].numpy(), image(index))
    assert torch.equal(slices[128], read[3])
    assert slices.read([]).shape == (0, 1, SIDE, SIDE)


def test_slices_are_resized_by_area(folder: Path) -> None:
    whole, small = (LodopabSlices(folder, "validation", size=size, count=128).read([0, 5]) for size in (SIDE, 128))
    assert small.shape == (2, 1, 128, 128)
    torch.testing.assert_close(small[:, 0], area_resize(whole[:, 0], 128))
    torch.testing.assert_close(small.mean((1, 2, 3)), whole.mean((1, 2, 3)))


def test_the_folder_of_the_archive_is_found(tmp_path: Path) -> None:
    write(tmp_path / "ground_truth_test", "test", held=2, rows={1: 1})
    assert np.array_equal(LodopabSlices(tmp_path, "test", size=SIDE, count=2)[1][0].numpy(), image(1))


def test_the_last_file_of_a_part_may_be_full_or_not(tmp_path: Path) -> None:
    assert sum(lodopab.COUNTS.values()) == 42_895
    left = lodopab.COUNTS["validation"] % 128
    last = lodopab.COUNTS["validation"] - 1
    for file in range(28):
        write(tmp_path, file=file, held=left if file == 27 else 128, rows={(last % 128): 7} if file == 27 else {})
    assert np.array_equal(LodopabSlices(tmp_path, "validation", size=SIDE)[last][0].numpy(), image(7))
    write(tmp_path, file=27, held=128, rows={last % 128: 9})
    assert np.array_equal(LodopabSlices(tmp_path, "validation", size=SIDE)[last][0].numpy(), image(9))


def test_only_what_is_asked_for_is_read(folder: Path) -> None:
    slices = LodopabSlices(folder, "validation", count=256)
    slices.read([0])  # imports
    tracemalloc.start()
    slices.read([0, 131])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 4 * SIDE**2  # a file has 128 slices


def test_it_can_be_sent_to_another_process(folder: Path) -> None:
    slices = pickle.loads(pickle.dumps(LodopabSlices(folder, "validation", count=128)))
    assert slices[5].shape == (1, 128, 128)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "training"}, "parts 'train', 'validation', 'test'; got part='training'"),
        ({"size": 0}, "needs 1 <= size <= 362; got size=0"),
        ({"size": 512}, "needs 1 <= size <= 362; got size=512"),
        ({"count": 0}, "has 1 to 3522 slices; got count=0"),
        ({"count": 3523}, "has 1 to 3522 slices; got count=3523"),
    ],
)
def test_bad_options(folder: Path, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"part": "validation"} | options
    with pytest.raises(ValueError, match=message):
        LodopabSlices(folder, **arguments)


@pytest.mark.parametrize("index", [-1, 256])
def test_an_index_out_of_range(folder: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"0 to 255; got index {index}"):
        LodopabSlices(folder, "validation", count=256).read([0, index])


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"26 of 28 files are missing .* ground_truth_validation_002.hdf5"):
        LodopabSlices(folder, "validation")
    slices = LodopabSlices(folder, "validation", count=256)
    (folder / "ground_truth_validation_001.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=r"ground_truth_validation_001.hdf5 was in"):
        slices.read([200])


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5])
def test_a_truncated_file(folder: Path, kept: float) -> None:
    path = folder / "ground_truth_validation_000.hdf5"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="damaged or truncated"):
        LodopabSlices(folder, "validation", count=128).read([127])


def test_a_file_that_is_something_else(folder: Path) -> None:
    (folder / "ground_truth_validation_000.hdf5").write_bytes(b"<html>log in first</html>" * 1000)
    with pytest.raises(ValueError, match=r"ground_truth_validation_000.hdf5 is damaged or truncated"):
        LodopabSlices(folder, "validation", count=128).read([0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images", np.zeros((128, SIDE, SIDE), np.float32), r"needs the dataset 'data'; it has \['images'\]"),
        ("data", np.zeros((128, 64, 64), np.float32), r"shape \(slices, 362, 362\); it is float32 of shape"),
        ("data", np.zeros((128, SIDE), np.float32), r"shape \(slices, 362, 362\)"),
        ("data", np.zeros((1, SIDE, SIDE), np.uint8), "must be floating point"),
        ("data", np.zeros((3, SIDE, SIDE), np.float32), "must hold 128 to 128 slices; it holds 3"),
        ("data/nested", np.zeros(1), "needs the dataset 'data'"),
    ],
)
def test_a_wrong_layout(tmp_path: Path, name: str, content: np.ndarray, message: str) -> None:
    with h5py.File(tmp_path / "ground_truth_validation_000.hdf5", "w") as archive:
        archive.create_dataset(name, data=content, compression="gzip" if content.size > 1 else None)
    with pytest.raises(ValueError, match=message):
        LodopabSlices(tmp_path, "validation", count=128).read([0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1000.0])
def test_values_that_are_no_ground_truth(tmp_path: Path, value: float) -> None:
    path = write(tmp_path, held=1, rows={0: 0})
    with h5py.File(path, "a") as archive:
        archive["data"][0, 10, 10] = value
    with pytest.raises(ValueError, match=r"ground truth lies in \[0, 1\]"):
        LodopabSlices(tmp_path, "validation", count=1).read([0])


def test_area_resize_is_the_mean_over_the_area() -> None:
    images = torch.rand(3, 6, 10, dtype=torch.float64)
    # Cut every pixel so finely that old and new cells are whole numbers of pieces.
    fine = images.repeat_interleave(4, 1).repeat_interleave(4, 2)
    oracle = fine.reshape(3, 4, 6, 4, 10).mean((2, 4))
    torch.testing.assert_close(area_resize(images, 4), oracle)
    torch.testing.assert_close(area_resize(images, 20).mean((1, 2)), images.mean((1, 2)))
    torch.testing.assert_close(area_resize(oracle, 4), oracle)
