"""How many cores this process may use: fewer than the machine has, in a container or under a scheduler."""

import os
from collections.abc import Callable
from pathlib import Path

_ROOT = Path("/")


def affinity() -> set[int] | None:
    """The logical cores on which this process may run; None where the system does not say (macOS, Windows)."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def quota(root: Path = _ROOT) -> float | None:
    """The processor time per time that control groups grant, in cores; None where they set no limit.

    Of a group and those around it the smallest limit holds. Version 2 of control groups writes `quota period` in
    `cpu.max`, version 1 has two files.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits: list[float] = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            limits += _limits(root / "sys/fs/cgroup", path, _version_2)
        elif "cpu" in controllers.split(","):
            for folder in (controllers, "cpu", "cpu,cpuacct"):
                limits += _limits(root / "sys/fs/cgroup" / folder, path, _version_1)
    return min(limits, default=None)


def _limits(mount: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    # In a container its own group is mounted as the root, while the path is that seen from outside.
    parts = Path(path.lstrip("/")).parts
    folders = [mount.joinpath(*parts[:count]) for count in range(len(parts) + 1)]
    found = []
    for folder in folders:
        try:
            limit = read(folder)
        except (OSError, ValueError):
            continue
        if limit is not None:
            found.append(limit)
    return found


def _version_2(folder: Path) -> float | None:
    granted, period = (folder / "cpu.max").read_text().split()
    return None if granted == "max" else int(granted) / int(period)


def _version_1(folder: Path) -> float | None:
    granted = int((folder / "cpu.cfs_quota_us").read_text())
    return None if granted <= 0 else granted / int((folder / "cpu.cfs_period_us").read_text())


def physical(logical: set[int], root: Path = _ROOT) -> int | None:
    """Of how many physical cores these are; None where the system does not say."""
    cores = set()
    for number in logical:
        try:
            file = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
            cores.add(file.read_text().strip())
        except OSError:
            return None
    return len(cores)
