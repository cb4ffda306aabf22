"""What belongs into the wheel and the sdist, for `scripts/check_package.py`. The standard library alone."""

import email
import email.message
import hashlib
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

PACKAGE = "implicit_l2o"
_SUFFIXES = {".py", ".typed", ".yaml", ".html", ".css", ".js", ".svg", ".jinja"}
_METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
_FIELDS = (
    "Name",
    "Version",
    "Summary",
    "Keywords",
    "License-Expression",
    "Requires-Python",
    "Description-Content-Type",
)
_SDIST = (
    "pyproject.toml",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    f"src/{PACKAGE}/py.typed",
    "Makefile",
)


def check_wheel(wheel: Path, root: Path) -> None:
    """The package, its experiments, its templates, its metadata, and nothing else.

    Raises:
        RuntimeError: a file is missing or too much, of a kind that does not belong there, or a field is missing.
    """
    expected = {
        f"{PACKAGE}/{path.relative_to(root / 'src' / PACKAGE).as_posix()}"
        for path in (root / "src" / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"{PACKAGE}/_experiments/{path.name}" for path in (root / "experiments").glob("*.yaml")}
    found = set(hashes(wheel))
    info = {name for name in found if name.partition("/")[0].endswith(".dist-info")}
    _same_names(found - info, expected)
    _same_names({name.partition("/")[2] for name in info}, _METADATA)
    strange = sorted(name for name in found - info if Path(name).suffix not in _SUFFIXES)
    needed = (f"{PACKAGE}/py.typed", f"{PACKAGE}/_experiments/digits.yaml", f"{PACKAGE}/report/templates/")
    absent = [start for start in needed if not any(name.startswith(start) for name in found)]
    inside = [name for name in found if re.search(r"(^|/)(tests?|runs|results|docs)/|\.ipynb$|(^|/)test_", name)]
    if strange or absent or inside:
        raise RuntimeError(f"of an unknown kind: {strange}; missing: {absent}; do not belong there: {inside}")
    fields = metadata(wheel)
    if empty := [name for name in _FIELDS if not fields.get(name)]:
        raise RuntimeError(f"the metadata lack {', '.join(empty)}")


def check_sdist(sdist: Path) -> None:
    """What building, testing and documenting takes, and nothing that a run or a build left.

    Raises:
        RuntimeError: a file is missing, or one was left.
    """
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    absent = [name for name in _SDIST if name not in names]
    left = [name for name in names if re.search(r"(^|/)(__pycache__|runs|site|dist|\.venv)(/|$)|\.(pyc|ipynb)$", name)]
    if absent or left:
        raise RuntimeError(f"missing: {absent}; left over: {left}")


def check_same(one: Path, other: Path) -> None:
    """Raise a `RuntimeError` unless both wheels have the same files, byte by byte."""
    first, second = hashes(one), hashes(other)
    differ = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    if differ:
        raise RuntimeError(f"{one.name} built from the sdist differs in {', '.join(differ[:10])}")


def _same_names(found: set[str], expected: set[str]) -> None:
    if found != expected:
        raise RuntimeError(f"missing: {sorted(expected - found)}; too much: {sorted(found - expected)}")


def hashes(wheel: Path) -> dict[str, str]:
    """Every file of a wheel with the digest of its content."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def unpack(wheel: Path, folder: Path) -> None:
    """The wheel's files in a folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def count(wheel: Path) -> dict[str, int]:
    """How many files of each kind a wheel has."""
    names = [name for name in hashes(wheel) if ".dist-info/" not in name]
    kinds = Counter("experiments" if "/_experiments/" in name else Path(name).suffix.lstrip(".") for name in names)
    return dict(sorted(kinds.items()))


def metadata(wheel: Path) -> email.message.Message:
    """The fields of a wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def extras(wheel: Path, *, base: bool = False) -> dict[str, list[str]]:
    """The requirements of each extra, as pip takes them; with `base`, under `""`, what the package always needs."""
    found: dict[str, list[str]] = {"": []} if base else {}
    fields = metadata(wheel)
    found |= {name: [] for name in fields.get_all("Provides-Extra", [])}
    for line in fields.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ["']([\w-]+)["']""", marker)
        name = extra[1] if extra else ""
        if name in found:
            found[name].append(requirement.strip())
    return found
