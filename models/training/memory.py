"""Memory of a process that trains: kept, not handed back to the system after every layer."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_memory() -> None:
    """Let the allocator keep what is freed.

    By default glibc maps each large block from the kernel and unmaps it when it is freed. A training step
    allocates and frees hundreds of them, and the kernel has to clear every page again: on two cores that took
    two thirds of the time of a step. Other C libraries keep large blocks themselves; there this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
