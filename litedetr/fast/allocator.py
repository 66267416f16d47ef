"""What glibc does with memory that is free: it stays with the process between photos, in one place, or goes back.

The layers of a run take and give back the same hundred megabytes for every photo. glibc hands what is freed back to the system
and then fetches it anew, page by page: up to a sixth of a run's processor time (docs/speed.md).
"""

from __future__ import annotations

import ctypes
import os

KEPT = 256 << 20
"""Bytes of freed memory that glibc keeps: what a photo of 800x1066 needs, twice."""
LARGEST = 32 << 20
"""Blocks up to this size come out of the kept memory: the most that glibc allows."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # M_TRIM_THRESHOLD, … of <malloc.h>
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory for this process, instead of giving it back and fetching it again.

    Returns:
        Whether it does; False without glibc, and where the environment has settings of its own, which stay.
    """
    if any(name in os.environ for name in _SETTINGS):
        return False
    libc = _glibc()
    return libc is not None and bool(libc.mallopt(_MMAP_THRESHOLD, LARGEST) and libc.mallopt(_TRIM_THRESHOLD, KEPT))


def one_arena() -> None:
    """All threads of this process take memory from one place. Nothing happens without glibc.

    A server's runs have a thread each; many of them would get an arena each, and each arena keeps what was freed between the runs
    that are kept.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Free memory goes back to the system. Nothing happens without glibc."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  other libraries' mallopt means something else, if it is there
    except (AttributeError, OSError, TypeError):  # no such function; TypeError: Windows knows no library without a name
        return None
    return libc
