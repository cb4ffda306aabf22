"""Numba comes with an extra, so the kernels are compiled, and numba imported, when a decoder is first used."""

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

    return numba.njit(cache=True, nogil=True)(inspect.unwrap(function))
