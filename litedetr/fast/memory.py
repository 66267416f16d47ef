"""Memory that stays with the process between photos.

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
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of <malloc.h>
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory for this process, instead of giving it back and fetching it again.

    Returns:
        Whether it does; False without glibc, and where the environment has settings of its own, which stay.
    """
    if any(name in os.environ for name in _SETTINGS):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  other libraries' mallopt means something else, if it is there
        return bool(libc.mallopt(_MMAP_THRESHOLD, LARGEST) and libc.mallopt(_TRIM_THRESHOLD, KEPT))
    except (AttributeError, OSError, TypeError):  # no such function; TypeError: Windows knows no library without a name
        return False
