"""Versions, where the package is imported from, and which optional parts are installed."""

import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

import numpy as np
import torch

import implicit_l2o as il2o
from implicit_l2o.doctor.findings import Finding, Level

NAME = "implicit_l2o"
_SHOWN = ("torch", "numpy", "scipy", "jaxtyping")
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)\s*(\[[^]]*\])?\s*(?P<range>[^;]*?)\s*(;(?P<marker>.*))?\Z")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")
_COMPARISON = re.compile(r"(>=|==|<=|<|>|!=|~=)\s*([\d.]+)")


@dataclass(frozen=True)
class Requirement:
    """A package that this one needs, or that one of its optional parts needs.

    Attributes:
        name: of the package.
        range: the permitted versions, `">=2.6"`.
        installed: the version that is there, None where there is none.
    """

    name: str
    range: str
    installed: str | None

    @property
    def met(self) -> bool:
        """Whether a permitted version is installed."""
        return self.installed is not None and permits(self.range, self.installed)

    def __str__(self) -> str:
        there = "missing" if self.installed is None else f"{self.installed} is installed"
        return f"{self.name}{self.range} ({there})"


def permits(versions: str, version: str) -> bool:
    """Whether a range such as `">=1.9,<3"` has that version in it, by the numbers of the release alone.

    The package's own requirements compare by `>=` and `==`; what else a range may say is taken as met.
    """
    has = _numbers(version)
    for comparison, text in _COMPARISON.findall(versions):
        wanted = _numbers(text)
        length = max(len(has), len(wanted))
        left, right = (part + (0,) * (length - len(part)) for part in (has, wanted))
        met = {"==": left == right, "!=": left != right, ">=": left >= right, "<": left < right}
        if not met.get(comparison, True):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def version_of(name: str) -> str | None:
    """The installed version of a package by its metadata, without importing it; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Of Python, this package and what it always needs."""
    found = {"python": platform.python_version(), NAME: il2o.__version__}
    return found | {name: version_of(name) for name in _SHOWN}


def requirements(lines: Iterable[str]) -> dict[str, list[Requirement]]:
    """The requirements of a package's metadata: under `""` those of the package, under its name those of an extra."""
    found: dict[str, list[Requirement]] = {}
    for line in lines:
        match = _REQUIREMENT.match(line.strip())
        if match is None:
            continue
        extra = _EXTRA.search(match["marker"] or "")
        entry = Requirement(match["name"], match["range"].replace(" ", ""), version_of(match["name"]))
        found.setdefault(extra[1] if extra else "", []).append(entry)
    return found


def installed_requirements() -> dict[str, list[Requirement]]:
    """Those of the installed package; empty where it is not installed but found on the path."""
    try:
        return requirements(metadata.requires(NAME) or ())
    except metadata.PackageNotFoundError:
        return {}


def check_requirements(needed: Mapping[str, list[Requirement]]) -> list[Finding]:
    """Unmet requirements of the package are problems; parts that are older than an extra permits are warnings."""
    found = [
        Finding(Level.PROBLEM, f"The package needs {each}.", f"pip install '{each.name}{each.range}'")
        for each in needed.get("", [])
        if not each.met
    ]
    for extra, parts in needed.items():
        old = [part for part in parts if extra and part.installed is not None and not part.met]
        if old:
            text = f"Conflicting versions: the extra '{extra}' needs {', '.join(map(str, old))}."
            found.append(Finding(Level.WARNING, text, install(extra)))
    return found


def install(extra: str) -> str:
    """The command that brings an optional part."""
    return f"pip install '{NAME}[{extra}]'"


def check_numpy() -> list[Finding]:
    """PyTorch and NumPy of different generations do not exchange arrays."""
    try:
        torch.from_numpy(np.zeros(1)).numpy()
    except (RuntimeError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        text = f"PyTorch {torch.__version__} does not work with NumPy {np.__version__} ({reason})."
        return [Finding(Level.PROBLEM, text, "pip install --upgrade torch numpy")]
    return []


def installations() -> list[tuple[str, Path]]:
    """Version and folder of every installation of the package that Python finds, the first of which pip speaks of.

    The folder is that of the sources, for an editable installation that of the checkout.
    """
    found: dict[Path, str] = {}
    for distribution in metadata.distributions(name=NAME):
        found.setdefault(_folder(distribution), distribution.version)
    return [(version, folder) for folder, version in found.items()]


def _folder(distribution: metadata.Distribution) -> Path:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(unquote(urlparse(origin["url"]).path)))
    return Path(str(distribution.locate_file(NAME)))


def check_installation(imported: Path, version: str, installed: list[tuple[str, Path]]) -> list[Finding]:
    """Whether what is imported is what was installed.

    Args:
        imported: the folder of the package that was imported.
        version: its `__version__`.
        installed: see `installations`.
    """
    if not installed:
        text = f"{NAME} is not installed; it is imported from {imported}, which is on the path of Python."
        return [Finding(Level.WARNING, text, "pip install . (in the checkout)")]
    found = []
    if len(installed) > 1:
        places = ", ".join(f"{number} in {folder}" for number, folder in installed)
        text = f"{NAME} is installed {len(installed)} times: {places}."
        found.append(Finding(Level.PROBLEM, text, f"pip uninstall {NAME}, until none is left, and install it once"))
    number, folder = installed[0]
    if not imported.resolve().is_relative_to(folder.resolve()):
        text = (
            f"Another copy shadows the installed package: installed in {folder}, but imported from {imported}. What runs is "
            f"not what was installed."
        )
        found.append(Finding(Level.PROBLEM, text, "unset PYTHONPATH, leave that folder, or pip install -e . in it"))
    elif number != version:
        text = f"The sources are of version {version}, the installation says {number}: its requirements may be out of date."
        found.append(Finding(Level.PROBLEM, text, "pip install -e . (in the checkout)"))
    return found
