"""New data for a trained model, from the files that people have: `.npz`, `.parquet`, `.h5` and `.csv`."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from implicit_l2o.data._files import check_claim

DEFAULTS = ("d", "inputs", "x", "images", "features")  # what the inputs are called where no name is given
_NUMBERS = "biuf"  # kinds of NumPy's dtypes


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    r"""The arrays of a file by name, in the file's order.

    A column of numbers is `(N,)`, one of lists of equal length `(N, k)`, and so on for lists of lists; a missing number is
    NaN. Where a table has several columns of numbers, they are there together, too, as `"features"` `(N, C)`. Text
    and the like are objects (None each in an HDF5 file, whose text is not read); `read_inputs` refuses them. Groups of an
    HDF5 file show in the names, `group/array`.

    Args:
        path: `.npz` (without pickled objects), `.parquet`, `.h5`, `.hdf5`, or `.csv` whose first line names the columns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken or of another kind; the message names it.
        ModuleNotFoundError: the package that reads such files is not installed.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from implicit_l2o.data.tables import read_arrays
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "new.csv"
        >>> _ = path.write_text("a,b,name\n1,2.5,first\n3,4.5,second\n")
        >>> {name: array.shape for name, array in read_arrays(path).items()}
        {'a': (2,), 'b': (2,), 'name': (2,), 'features': (2, 2)}
        >>> folder.cleanup()
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: the file must be one of {', '.join(_READERS)}; got {path.suffix or 'no suffix'}.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    with path.open("rb"):  # a folder, or a file that may not be read, has an error of its own
        pass
    try:
        return reader(path)
    except (_Refused, ModuleNotFoundError) as error:
        raise type(error)(f"{path}: {error}") from error.__cause__
    except MemoryError as error:
        raise ValueError(f"{path}: it holds more than fits into the memory.") from error
    except Exception as error:  # whatever a broken file provokes in three packages
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a readable {path.suffix} file ({reason}).") from error


def read_inputs(
    path: Path, *, name: str | None = None, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Shaped[Tensor, "N *sample"]:
    """The inputs of a model from a file, `(N, *shape)`.

    Samples that are flat, or lack a dimension of size 1, are reshaped. NaN and infinity are kept: the model marks them.

    Args:
        path: as in `read_arrays`.
        name: which array; several columns are joined by commas, `"width,height"`. None takes the first of `d`, `inputs`,
            `x`, `images`, `features` that is there with this shape, else the only array.
        shape: of one sample.
        dtype: of the result.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, or it has no such array, or not of that shape or of numbers; the message lists
            what is there and what is needed.
        ModuleNotFoundError: the package that reads such files is not installed.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from implicit_l2o.data.tables import read_inputs
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "new.npz"
        >>> np.savez(path, d=np.ones((5, 64)), label=np.arange(5))
        >>> read_inputs(path, shape=(1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])
        >>> folder.cleanup()
    """
    arrays = read_arrays(path)
    needed = f"needed: (N{''.join(f', {n}' for n in shape)}{',' if not shape else ''}); in the file: {_listing(arrays)}"
    if name is None:
        name = _usual(arrays, shape)
    chosen, array = _choose(Path(path), arrays, name, needed)
    what = f"{path}: the array {chosen!r}"
    if array.dtype.kind not in _NUMBERS:
        raise ValueError(f"{what} holds {_kind(array)}, not numbers; {needed}.")
    if not _fits(array.shape, shape):
        raise ValueError(f"{what} has the shape {array.shape}; {needed}.")
    if not len(array):
        raise ValueError(f"{what} has no samples; {needed}.")
    return _tensor(array.reshape(len(array), *shape), dtype, what)


def _usual(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> str | None:
    """The array with a usual name; one of another shape (a column that is called x) only where there is no better."""
    usual = [default for default in DEFAULTS if default in arrays]
    fitting = [default for default in usual if _fits(arrays[default].shape, shape)]
    return next(iter(fitting or usual or (arrays if len(arrays) == 1 else ())), None)


def _choose(path: Path, arrays: Mapping[str, np.ndarray], name: str | None, needed: str) -> tuple[str, np.ndarray]:
    if name is None:
        raise ValueError(f"{path}: say which array holds the inputs; {needed}.")
    if name in arrays:
        return name, arrays[name]
    parts = [part.strip() for part in name.split(",")]
    for part in parts:
        if part not in arrays:
            raise ValueError(f"{path}: no array {part!r}; {needed}.")
        if arrays[part].ndim != 1 or arrays[part].dtype.kind not in _NUMBERS:
            raise ValueError(f"{path}: {part!r} is no column of numbers, so it cannot be joined to others; {needed}.")
    return name, np.column_stack([arrays[part] for part in parts])


def _fits(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether one reading alone makes samples of this shape: the same but for dimensions of size 1, or flat."""
    if not found:
        return False
    sample = found[1:]
    return [n for n in sample if n != 1] == [n for n in shape if n != 1] or sample == (math.prod(shape),)


def _tensor(array: np.ndarray, dtype: torch.dtype, what: str) -> Tensor:
    if dtype.is_floating_point:
        with np.errstate(over="ignore"):  # infinite in the narrower dtype, which is kept
            wide = array.astype(np.float64 if dtype == torch.float64 else np.float32)
        return torch.from_numpy(wide).to(dtype)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.trunc(array)).all()):
        raise ValueError(f"{what} holds fractions, NaN or infinity; the model takes whole numbers ({dtype}).")
    return torch.from_numpy(array.astype(np.int64)).to(dtype)


def _listing(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {array.shape} {_kind(array)}" for name, array in arrays.items()) or "nothing"


def _kind(array: np.ndarray) -> str:
    return "objects" if array.dtype.kind == "O" else "text" if array.dtype.kind in "US" else str(array.dtype)


class _Refused(ValueError):
    """A file that was read well, and holds what cannot be taken."""


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:  # NumPy would leave a broken file open
        file = np.load(stream, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise _Refused("not an archive of arrays; write it by numpy.savez.")
        archive: Any = file.zip
        check_claim(path, sum(part.file_size for part in archive.infolist()))
        arrays = {}
        for name in file.files:
            try:
                arrays[name] = file[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise _Refused(f"the array {name!r} holds Python objects, which are not read; save numbers.") from error
        return arrays


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    _need("pyarrow", "train")
    import pyarrow.parquet as parquet

    # By `read_table` a folder named `key=value` above the file would become a column.
    with parquet.ParquetFile(path) as file:
        check_claim(path, 8 * file.metadata.num_rows * file.metadata.num_columns)
        table = file.read()
    return _with_features({name: _dense(table.column(name).combine_chunks(), name) for name in table.column_names})


def _dense(column: Any, name: str) -> np.ndarray:
    """An Arrow array; lists become further dimensions."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if column.null_count:
            raise _Refused(f"the column {name!r} has rows without a list.")
        lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise _Refused(f"the lists of the column {name!r} differ in length, {lengths[0]} to {lengths[-1]}.")
        width = int(lengths[0]) if len(lengths) else 0
        inner = _dense(column.flatten(), name)
        return inner.reshape(len(column), width, *inner.shape[1:])
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_boolean(kind) and column.null_count:
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        objects = np.empty(len(column), dtype=object)
        objects[:] = column.to_pylist()
        return objects
    return column.to_numpy(zero_copy_only=False)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    _need("pandas", "train")
    import pandas as pd

    table = pd.read_csv(path, low_memory=False)  # else what a column is may differ from part to part, with a warning
    if len(table.columns) and all(_is_number(str(name)) for name in table.columns):
        raise _Refused("the first line must name the columns; it holds numbers.")
    return _with_features({str(name): table[name].to_numpy() for name in table.columns})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_features(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    numbers = [array for array in columns.values() if array.ndim == 1 and array.dtype.kind in _NUMBERS]
    if len(numbers) < 2 or "features" in columns:
        return columns
    return {**columns, "features": np.column_stack(numbers)}


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    _need("h5py", "train")
    import h5py

    arrays: dict[str, np.ndarray] = {}
    claimed = 0

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            nonlocal claimed
            claimed += item.dtype.itemsize * max(int(item.size or 0), math.prod(item.chunks or ()))
            check_claim(path, claimed)
            # Text of any length lies in heaps, and HDF5's library loops for ever in a damaged one.
            text = item.dtype.hasobject
            arrays[name] = np.empty(item.shape, object) if text else np.asarray(item[()])

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return arrays


def _need(package: str, extra: str) -> None:
    """Raise a `ModuleNotFoundError` that says how to install a package."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ModuleNotFoundError(f"reading it needs {package}: pip install 'implicit_l2o[{extra}]'.")


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".csv": _read_csv,
}
