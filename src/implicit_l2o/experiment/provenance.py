"""Where a number comes from: the machine, the versions, the commit."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from implicit_l2o.report import machine

_PACKAGES = (
    "implicit_l2o",
    "torch",
    "lightning",
    "torchmetrics",
    "jsonargparse",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
)


def provenance() -> dict[str, Any]:
    """The entries `machine`, `versions` and `git_commit` of a result."""
    return {"machine": machine(), "versions": versions(), "git_commit": git_commit()}


def versions() -> dict[str, str]:
    """Of the packages that a number may depend on, as far as they are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit that is checked out here, with `+changes` where tracked files differ; None outside of git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
