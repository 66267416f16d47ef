"""What is done where the memory is too small for a photo: half the size, then the CPU instead of the GPU."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import torch

from litedetr import Detector
from litedetr.guests.detector import GuestDetector

log = logging.getLogger(__name__)
T = TypeVar("T")


class NoMemory(Exception):
    """Not even the last way fits."""


def first_that_fits(ways: Iterable[tuple[str, Callable[[], T]]]) -> tuple[str, T]:
    """The first of some ways, the dearest first, for which the memory is enough: its name and what it gives.

    Raises:
        NoMemory: it was not enough for any of them.
    """
    for name, way in ways:
        try:
            return name, way()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            log.warning("Not enough memory%s: %s", f" ({name})" if name else "", str(error).splitlines()[0][:200])
        # Here, where the error and the frames that it holds are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise NoMemory


def out_of_memory(error: BaseException) -> bool:
    """Whether this is what PyTorch, its libraries and Python raise where memory ends."""
    words = ("can't allocate memory", "not enough memory", "_ALLOC_FAILED", "out of memory", "could not create a primitive")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def sized(detector: Detector | GuestDetector, short_side: int, long_side: int) -> Detector | GuestDetector:
    """The same detector, the same weights in memory, that looks at photos of another size. A guest has one."""
    if isinstance(detector, GuestDetector):
        return detector
    other = copy.copy(detector)
    other.config = replace(detector.config, short_side=short_side, long_side=long_side)
    return other
