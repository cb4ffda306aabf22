"""Keep the memory of large temporary tensors on glibc: giving it back to the system costs more than computing with it."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
_LARGEST = 2**30  # bytes of one tensor
_PAD = 2**26


def keep_freed_memory() -> bool:
    """Let this process keep what it frees: fresh pages for every large temporary can cost more than its values.

    By default glibc maps each block above 128 KiB to 32 MiB anew, and every page is then cleared by the system at its first
    use. The process keeps its peak instead. Nothing changes where `MALLOC_MMAP_THRESHOLD_` or `MALLOC_TRIM_THRESHOLD_` is
    set, or with another C library.

    Returns:
        Whether the C library took the setting.

    Source: mallopt(3).

    Example:
        >>> from implicit_l2o.training.allocator import keep_freed_memory
        >>> keep_freed_memory() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc" or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD))
    return all(bool(mallopt(ctypes.c_int(name), ctypes.c_int(value))) for name, value in settings)
