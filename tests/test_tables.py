"""Tables in, arrays out: round trips, shapes, and one-line errors that name the file and what is in it."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from implicit_l2o.data.tables import read_arrays, read_inputs

NAMES = st.text("abcdefghijkl_", min_size=1, max_size=6).filter(
    lambda name: name not in ("features", "file")  # numpy.savez has an argument `file`
)
KINDS = st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_])
SHARED = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def arrays(sizes: st.SearchStrategy[int], max_dims: int) -> st.SearchStrategy[dict[str, np.ndarray]]:
    """Named arrays over the same samples, NaN and infinity among their entries."""

    def over(n: int) -> st.SearchStrategy[dict[str, np.ndarray]]:
        shapes = st.lists(st.integers(1, 3), max_size=max_dims - 1).map(lambda rest: (n, *rest))
        return st.dictionaries(NAMES, KINDS.flatmap(lambda kind: hnp.arrays(kind, shapes)), min_size=1, max_size=4)

    return sizes.flatmap(over)


def write_npz(path: Path, content: dict[str, np.ndarray]) -> None:
    np.savez(path, **content)  # pyright: ignore[reportArgumentType]


def write_h5(path: Path, content: dict[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file[f"group/{name}"] = array


def write_parquet(path: Path, content: dict[str, np.ndarray]) -> None:
    parquet.write_table(pa.table({name: array.tolist() for name, array in content.items()}), path)


def write_csv(path: Path, content: dict[str, np.ndarray]) -> None:
    pd.DataFrame(content).to_csv(path, index=False, float_format="%.17g", na_rep="nan")


def check(found: dict[str, np.ndarray], content: dict[str, np.ndarray], prefix: str = "") -> None:
    for name, array in content.items():
        np.testing.assert_array_equal(found[prefix + name].astype(np.float64), array.astype(np.float64))
        assert found[prefix + name].shape == array.shape


@SHARED
@given(content=arrays(st.integers(0, 4), 3))
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_archives_come_back_as_they_are(tmp_path: Path, kind: str, content: dict[str, np.ndarray]) -> None:
    path = tmp_path / f"data.{kind}"
    {"npz": write_npz, "h5": write_h5}[kind](path, content)
    found = read_arrays(path)
    check(found, content, "" if kind == "npz" else "group/")
    assert len(found) == len(content)
    assert all(found[name].dtype == content[name.removeprefix("group/")].dtype for name in found)


@SHARED
@given(content=arrays(st.integers(1, 4), 3))
def test_lists_in_a_parquet_file_are_dimensions(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    write_parquet(tmp_path / "data.parquet", content)
    check(read_arrays(tmp_path / "data.parquet"), content)


@SHARED
@given(content=arrays(st.integers(1, 4), 1))
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_columns_of_numbers_are_features_in_their_order(
    tmp_path: Path, kind: str, content: dict[str, np.ndarray]
) -> None:
    path = tmp_path / f"data.{kind}"
    {"parquet": write_parquet, "csv": write_csv}[kind](path, content)
    found = read_arrays(path)
    check(found, content)
    assert ("features" in found) == (len(content) > 1)
    if len(content) > 1:
        expected = np.column_stack([array.astype(np.float64) for array in content.values()])
        np.testing.assert_array_equal(found["features"].astype(np.float64), expected)
        d = read_inputs(path, shape=(len(content),), dtype=torch.float64)
        np.testing.assert_array_equal(d.numpy(), expected)
        reverse = list(content)[::-1]
        d = read_inputs(path, name=", ".join(reverse), shape=(len(content),), dtype=torch.float64)
        np.testing.assert_array_equal(d.numpy(), expected[:, ::-1])


@SHARED
@given(
    shape=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    count=st.integers(1, 4),
    flat=st.booleans(),
    squeezed=st.booleans(),
    data=st.data(),
)
def test_inputs_have_the_shape_that_is_needed(
    tmp_path: Path, shape: tuple[int, ...], count: int, flat: bool, squeezed: bool, data: st.DataObject
) -> None:
    array = data.draw(hnp.arrays(np.float32, (count, *shape)))
    stored = array.reshape(count, -1) if flat else array
    stored = stored.reshape(count, *[n for n in stored.shape[1:] if n != 1]) if squeezed else stored
    write_npz(tmp_path / "data.npz", {"d": stored, "label": np.arange(count)})
    found = read_inputs(tmp_path / "data.npz", shape=shape)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), array)


def test_which_array_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    one, two = np.ones((2, 3)), np.full((2, 3), 2.0)
    write_npz(path, {"images": two, "inputs": one})
    assert read_inputs(path, shape=(3,))[0, 0] == 1
    assert read_inputs(path, name="images", shape=(3,))[0, 0] == 2
    write_npz(path, {"d": np.ones(2), "images": two})
    assert read_inputs(path, shape=(3,))[0, 0] == 2
    write_npz(path, {"anything": two})
    assert read_inputs(path, shape=(3,))[0, 0] == 2


def test_what_is_not_finite_is_kept(tmp_path: Path) -> None:
    write_npz(tmp_path / "data.npz", {"d": np.array([[np.nan, np.inf, 1e300]])})
    (row,) = read_inputs(tmp_path / "data.npz", shape=(3,)).tolist()
    assert math.isnan(row[0])
    assert row[1:] == [math.inf, math.inf]  # 1e300 has no float32


def test_a_missing_number_is_nan(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,\n,2\n")
    parquet.write_table(pa.table({"a": [1, None], "b": [None, True]}), tmp_path / "data.parquet")
    for kind, last in (("csv", 2.0), ("parquet", 1.0)):
        found = read_inputs(tmp_path / f"data.{kind}", shape=(2,))
        assert found.nan_to_num(-1.0).tolist() == [[1.0, -1.0], [-1.0, last]]


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    write_npz(tmp_path / "data.npz", {"d": np.array([2**53 + 1])})
    assert read_inputs(tmp_path / "data.npz", shape=(), dtype=torch.int64).tolist() == [2**53 + 1]
    write_npz(tmp_path / "data.npz", {"d": np.array([1.5])})
    with pytest.raises(ValueError, match="the model takes whole numbers"):
        read_inputs(tmp_path / "data.npz", shape=(), dtype=torch.int64)


def test_byte_order_and_bfloat16(tmp_path: Path) -> None:
    write_npz(tmp_path / "data.npz", {"d": np.arange(4, dtype=">f8").reshape(2, 2)})
    found = read_inputs(tmp_path / "data.npz", shape=(2,), dtype=torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[0.0, 1.0], [2.0, 3.0]]


# What is refused.


def one_line(error: pytest.ExceptionInfo[Exception], path: Path) -> str:
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (
            {"d": np.ones((2, 4))},
            {},
            r"the array 'd' has the shape \(2, 4\); needed: \(N, 3\); .*: d \(2, 4\) float64\.$",
        ),
        ({"a": np.ones((2, 3)), "b": np.ones(2)}, {}, r"say which array .*: a \(2, 3\) float64, b \(2,\) float64\.$"),
        ({"a": np.ones((2, 3))}, {"name": "c"}, r"no array 'c'; needed: \(N, 3\); in the file: a \(2, 3\) float64\.$"),
        ({"a": np.ones(2), "b": np.ones((2, 3))}, {"name": "a,b"}, r"'b' is no column of numbers"),
        ({"d": np.array(["one", "two"])}, {}, r"the array 'd' holds text, not numbers"),
        ({"d": np.ones((2, 3), dtype=np.complex64)}, {}, r"holds complex64, not numbers"),
        ({"d": np.ones((0, 3))}, {}, r"has no samples"),
        ({"d": np.float64(1.0)}, {}, r"has the shape \(\)"),
        ({}, {}, r"in the file: nothing"),
        ({"d": np.array([{"a": 1}])}, {}, r"the array 'd' holds Python objects"),
    ],
)
def test_a_file_without_such_inputs(
    tmp_path: Path, content: dict[str, Any], options: dict[str, str], expected: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, allow_pickle=True, **content)
    with pytest.raises(ValueError, match=expected) as error:
        read_inputs(path, shape=(3,), **options)
    one_line(error, path)


def test_channels_last_are_not_taken_for_channels_first(tmp_path: Path) -> None:
    write_npz(tmp_path / "data.npz", {"images": np.ones((2, 4, 4, 3))})
    with pytest.raises(ValueError, match="has the shape"):
        read_inputs(tmp_path / "data.npz", shape=(3, 4, 4))


def test_a_column_of_text_is_refused_by_its_name(tmp_path: Path) -> None:
    pd.DataFrame({"name": ["a", "b"], "size": [1.0, 2.0]}).to_csv(tmp_path / "data.csv", index=False)
    parquet.write_table(pa.table({"name": ["a", "b"], "size": [1.0, 2.0]}), tmp_path / "data.parquet")
    for kind in ("csv", "parquet"):
        path = tmp_path / f"data.{kind}"
        assert read_inputs(path, name="size", shape=()).tolist() == [1.0, 2.0]
        with pytest.raises(ValueError, match=r"the array 'name' holds (objects|text), not numbers") as error:
            read_inputs(path, name="name", shape=())
        one_line(error, path)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([[1.0], [1.0, 2.0]], "the lists of the column 'a' differ in length, 1 to 2"),
        ([[1.0], None], "rows without a list"),
    ],
)
def test_uneven_lists_are_refused(tmp_path: Path, column: list[Any], expected: str) -> None:
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table({"a": column}), path)
    with pytest.raises(ValueError, match=expected) as error:
        read_arrays(path)
    one_line(error, path)


def test_a_csv_file_without_a_header_is_refused(tmp_path: Path) -> None:
    """Else its first sample would be lost."""
    path = tmp_path / "data.csv"
    path.write_text("1,2\n3,4\n5,6\n")
    with pytest.raises(ValueError, match="the first line must name the columns") as error:
        read_arrays(path)
    one_line(error, path)


CONTENT = {"a": np.arange(200.0), "b": np.arange(200.0) ** 2}
WRITERS: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {
    ".npz": write_npz,
    ".h5": write_h5,
    ".parquet": write_parquet,
}


@SHARED
@given(data=st.data())
@pytest.mark.parametrize("kind", WRITERS)
def test_a_truncated_file_gets_a_one_line_error(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / f"data{kind}"
    if not path.exists():
        WRITERS[kind](path, CONTENT)
        path.with_suffix(".whole").write_bytes(path.read_bytes())
    whole = path.with_suffix(".whole").read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match="not a readable") as error:
        read_arrays(path)
    one_line(error, path)


@SHARED
@given(junk=st.binary(max_size=200))
@pytest.mark.parametrize("kind", [".npz", ".h5", ".parquet"])
def test_junk_gets_a_one_line_error(tmp_path: Path, kind: str, junk: bytes) -> None:
    path = tmp_path / f"data{kind}"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"not a readable|not an archive") as error:
        read_arrays(path)
    one_line(error, path)


@pytest.mark.parametrize("junk", [b"", b'a,b\n1,2,3,4\n1\n"', b"a,b\n\xff\xfe,2\n"])
def test_a_broken_csv_file_gets_a_one_line_error(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"not a readable \.csv file") as error:
        read_arrays(path)
    one_line(error, path)


def test_a_missing_file_a_folder_and_another_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file") as error:
        read_arrays(tmp_path / "none.npz")
    one_line(error, tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        read_arrays(tmp_path / "folder.npz")
    with pytest.raises(
        ValueError, match=r"must be one of \.npz, \.parquet, \.h5, \.hdf5, \.csv; got \.xlsx"
    ) as refused:
        read_arrays(tmp_path / "data.xlsx")
    one_line(refused, tmp_path / "data.xlsx")


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_h5(tmp_path / "data.h5", CONTENT)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs h5py: pip install 'implicit_l2o\[train\]'") as error:
        read_arrays(tmp_path / "data.h5")
    one_line(error, tmp_path / "data.h5")
