"""How many threads a part of a run is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1 << 15
"""Numbers in a layer's input: with fewer, waking a second thread for each product costs as much as it helps."""


@contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """One thread within, where a layer's input has few numbers; this thread's own number of threads else, and afterwards."""
    threads = torch.get_num_threads()
    if threads == 1 or numbers >= SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
