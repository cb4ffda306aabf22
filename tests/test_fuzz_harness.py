"""What the fuzzer calls a finding, and that every target reads its seeds within its contract."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.harness import TARGETS, Target, Unsound, emptied, judge, load


def target(read: Callable[[bytes, Path], None], *, names_file: bool = True) -> Target:
    return Target(read=read, seeds=lambda: (), errors=(ValueError, OSError), names_file=names_file)


def fail(error: Exception) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        raise error

    return read


def test_a_clear_error_names_the_file(tmp_path: Path) -> None:
    assert judge(target(fail(ValueError(f"{tmp_path / 'a'} is damaged"))), b"", tmp_path) is None
    unnamed = judge(target(fail(ValueError("it is damaged"))), b"", tmp_path)
    assert unnamed is not None
    assert "does not name the file" in unnamed.text
    assert judge(target(fail(ValueError("it is damaged")), names_file=False), b"", tmp_path) is None


@pytest.mark.parametrize(
    "error", [KeyError("a"), MemoryError(), RecursionError("deep"), Unsound("infinite"), TypeError("x")]
)
def test_other_errors_are_findings(tmp_path: Path, error: Exception) -> None:
    found = judge(target(fail(error)), b"", tmp_path)
    assert found is not None
    assert found.text.startswith(f"{type(error).__name__} is no clear error")
    assert found.key.startswith(type(error).__name__)


@pytest.mark.parametrize(("count", "is_finding"), [(5, False), (6, True)])
def test_many_warnings_are_one(tmp_path: Path, count: int, is_finding: bool) -> None:
    def read(data: bytes, folder: Path) -> None:
        for number in range(count):
            warnings.warn(f"number {number}", stacklevel=1)

    assert (judge(target(read), b"", tmp_path) is not None) == is_finding


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_within_the_contract(tmp_path: Path, name: str) -> None:
    for module in {"hdf5": ["h5py"], "parquet": ["pyarrow"], "slices": ["pydicom", "nibabel"]}.get(name, []):
        pytest.importorskip(module, reason=f"{module}, which the target {name} needs, is not installed")
    try:
        found = load(name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("implicit_l2o."):
            raise
        pytest.skip(f"there is no {error.name} in this checkout")
    seeds = list(found.seeds())[:8]
    assert seeds
    if name == "config":
        seeds = seeds[:1]  # Lightning's parser takes a second
    for seed in seeds:
        assert judge(found, seed, emptied(tmp_path)) is None
