"""One thread on one core, before any numerical library is loaded."""

import os

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


def pin() -> int | None:
    """Keep this process to the last core it may use, with one thread in every library; the core, None where it can't be.

    Raises:
        SystemExit: a numerical library was loaded before, so that its threads can't be limited any more.
    """
    import sys

    loaded = [name for name in ("numpy", "torch") if name in sys.modules]
    if loaded and any(os.environ.get(name) != "1" for name in THREADS[:3]):
        raise SystemExit(f"{loaded[0]} is loaded already: set {', '.join(THREADS[:3])} to 1 before Python starts.")
    for name in THREADS:
        os.environ[name] = "1"
    if not hasattr(os, "sched_setaffinity"):
        print("This system can't pin a process to a core: the times are of one thread that may move.")
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core
