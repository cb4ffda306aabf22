"""Numba comes with an extra, so it is imported by the modules of kernels, which are imported where they are first used.

A leaf of the import graph. Machine code is kept beside a kernel's file and renewed when that file changes, but not when a
kernel that it calls changes in another file: `make clean` after that.
"""

import functools
import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


@functools.cache
def has_numba() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def require_numba(what: str) -> None:
    """Raise the error that says how to install numba, where it is not."""
    if not has_numba():
        raise ModuleNotFoundError(f"{what} needs numba: pip install 'implicit_l2o[exact]'.", name="numba")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel, without Python objects or the interpreter's lock; the machine code is kept on disk.

    `unwrap` is for run-time type checkers, which put a Python function around the kernel that numba could not compile.
    """
    import numba

    return numba.njit(cache=True, nogil=True, error_model="numpy")(inspect.unwrap(function))
