"""How many threads compute, on how many cores, and whether more of them are faster."""

import math
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from implicit_l2o.doctor import cores
from implicit_l2o.doctor.findings import Finding, Level

SETTINGS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_PROC_BIND", "OMP_DYNAMIC", "OMP_THREAD_LIMIT"),
    "KMP_DUPLICATE_LIB_OK",
)
_COUNTS = tuple(name for name in SETTINGS if name.endswith("_THREADS"))
_RUNTIME = re.compile(r"lib(gomp|iomp5|omp)\b[^/]*\.(so|dylib)[^/]*\Z|libiomp5md\.dll\Z|vcomp\d*\.dll\Z")
_ENTRIES = 400_000  # above the size from which PyTorch shares an elementwise operation among threads
_REPEATS = 15
_SEPARATE = "Each has threads of its own, so together they can be more than the cores."
_ONE_SOURCE = "install PyTorch, NumPy and the others from one source: all by pip, or all by conda"
_SLOWER = 1.2  # many threads against one: beyond what a busy machine explains


@dataclass(frozen=True)
class Threads:
    """What decides how many threads compute at the same time.

    Attributes:
        logical: cores that this process may run on.
        physical: physical cores among them; None if unknown.
        quota: processor time that control groups grant, in cores; None without a limit.
        torch: threads of one operation.
        interop: threads for operations beside each other.
        settings: the environment variables that are set.
        runtimes: files of the OpenMP runtimes that are loaded; None if unknown.
        others: files of those that other installed packages bring, and load when they are imported.
        load: busy processes of the machine, mean of the last minute; None if unknown.
        milliseconds: of one operation, by number of threads.
    """

    logical: int
    physical: int | None
    quota: float | None
    torch: int
    interop: int
    settings: dict[str, str] = field(default_factory=dict)
    runtimes: list[str] | None = None
    others: list[str] = field(default_factory=list)
    load: float | None = None
    milliseconds: dict[int, float] = field(default_factory=dict)

    @property
    def available(self) -> int:
        """Cores that this process can keep busy."""
        return self.logical if self.quota is None else max(1, min(self.logical, math.ceil(self.quota)))


def look(environment: Mapping[str, str] = os.environ) -> Threads:
    """Look at this process."""
    allowed = cores.affinity()
    count = torch.get_num_threads()
    loaded = loaded_runtimes()
    return Threads(
        logical=len(allowed) if allowed else os.cpu_count() or 1,
        physical=cores.physical(allowed) if allowed else None,
        quota=cores.quota(),
        torch=count,
        interop=torch.get_num_interop_threads(),
        settings={name: environment[name] for name in SETTINGS if name in environment},
        runtimes=loaded,
        others=installed_runtimes(Path(torch.__file__).parents[1], loaded or []),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        milliseconds=milliseconds(count),
    )


def loaded_runtimes(maps: Path = Path("/proc/self/maps")) -> list[str] | None:
    """The files of the OpenMP runtimes in this process, from Linux's list of mapped files; None on other systems."""
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        return None
    files = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    return sorted(file for file in files if _RUNTIME.search(Path(file).name))


def installed_runtimes(packages: Path, loaded: list[str]) -> list[str]:
    """The files of OpenMP runtimes that wheels have put beside their packages, but for PyTorch's and those loaded."""
    patterns = ("*.libs/*", "*/lib/*", "*/.libs/*", "*/.dylibs/*")
    files = [file for pattern in patterns for file in packages.glob(pattern) if _RUNTIME.search(file.name)]
    return sorted(str(file) for file in files if str(file) not in loaded and packages / "torch" not in file.parents)


def milliseconds(count: int) -> dict[int, float]:
    """Time of one elementwise operation with one thread and with `count`: the best of several, in turns."""
    best = dict.fromkeys((1, count), math.inf)
    values = torch.full((_ENTRIES,), 0.5)
    try:
        for _ in range(_REPEATS):
            for threads in best:
                torch.set_num_threads(threads)
                values.tanh()  # wakes the threads
                start = time.perf_counter()
                values.tanh()
                best[threads] = min(best[threads], time.perf_counter() - start)
    finally:
        torch.set_num_threads(count)
    return {threads: 1e3 * seconds for threads, seconds in best.items()}


def check(threads: Threads) -> list[Finding]:
    """What is wrong with the threads, most serious first."""
    return [*_check_settings(threads), *_check_count(threads), *_check_speed(threads), *_check_runtimes(threads)]


def _check_settings(threads: Threads) -> list[Finding]:
    found = []
    for name in _COUNTS:
        value = threads.settings.get(name)
        if value is None:
            continue
        numbers = value.split(",") if name == "OMP_NUM_THREADS" else [value]  # one for each level of nesting
        if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
            text = f"{name}={value!r} is not a number of threads, so it is ignored."
            found.append(Finding(Level.PROBLEM, text, _export(threads, name)))
        elif int(numbers[0]) > threads.available and int(numbers[0]) != threads.torch:
            text = (
                f"Thread oversubscription: {name}={value} is more than the {_cores(threads.available)} of this process."
            )
            found.append(Finding(Level.PROBLEM, text, _export(threads, name)))
    if threads.settings.get("KMP_DUPLICATE_LIB_OK", "").lower() in ("1", "true"):
        text = (
            "KMP_DUPLICATE_LIB_OK hides that several OpenMP runtimes are loaded, which can crash or give wrong results."
        )
        found.append(Finding(Level.WARNING, text, "unset it, and install the packages from one source"))
    return found


def _check_count(threads: Threads) -> list[Finding]:
    if threads.torch > threads.available:
        text = (
            f"Thread oversubscription: PyTorch computes with {threads.torch} threads on the {_cores(threads.available)} of "
            f"this process. Each operation waits for threads that have no core: small ones become slower by a factor."
        )
        return [Finding(Level.PROBLEM, text, _export(threads))]
    if threads.physical is not None and threads.torch > max(1, threads.physical):
        text = (
            f"{threads.torch} threads on {_cores(threads.physical, 'physical ')}: two OpenMP threads on a shared core "
            f"stall each other."
        )
        return [Finding(Level.WARNING, text, f"export OMP_NUM_THREADS={threads.physical}")]
    return []


def _check_speed(threads: Threads) -> list[Finding]:
    found = []
    one, many = threads.milliseconds.get(1), threads.milliseconds.get(threads.torch)
    if one and many and threads.torch > 1 and many > _SLOWER * one:
        text = f"{threads.torch} threads are slower than one: {many:.2g} ms against {one:.2g} ms for an operation."
        found.append(Finding(Level.WARNING, text, "export OMP_NUM_THREADS=1, and run one process a core"))
    if threads.load is not None and threads.load > threads.logical + 0.5:
        text = f"The machine is busy: {threads.load:.1f} processes for {_cores(threads.logical)}. Times are too long."
        found.append(Finding(Level.NOTE, text))
    return found


def _check_runtimes(threads: Threads) -> list[Finding]:
    loaded = threads.runtimes or []
    if len(loaded) > 1:
        text = f"Several OpenMP runtimes are loaded: {', '.join(loaded)}. {_SEPARATE}"
        if len(_kinds(loaded)) > 1:
            text += " Different ones in one process can hang or crash."
            return [Finding(Level.PROBLEM, text, _ONE_SOURCE)]
        return [Finding(Level.WARNING, text, _export(threads))]
    if threads.others:
        names = ", ".join(f"{Path(file).parent.name}/{Path(file).name}" for file in threads.others)
        text = f"Installed packages bring further OpenMP runtimes: {names}. {_SEPARATE}"
        if len(_kinds([*loaded, *threads.others])) > 1:
            text += " Different ones in one process can hang or crash."
            return [Finding(Level.WARNING, text, _ONE_SOURCE)]
        return [Finding(Level.NOTE, text)]
    return []


def _kinds(files: list[str]) -> set[str]:
    names = (_RUNTIME.search(Path(file).name) for file in files)
    return {match[1] or match[0] for match in names if match}


def _export(threads: Threads, name: str = "OMP_NUM_THREADS") -> str:
    count = min(threads.available, threads.physical or threads.available)
    return f"{'set' if sys.platform == 'win32' else 'export'} {name}={count} (before Python starts)"


def _cores(count: int, kind: str = "") -> str:
    return f"{count} {kind}core{'' if count == 1 else 's'}"
