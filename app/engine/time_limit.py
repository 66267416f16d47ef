"""How long the model may work for one visitor: by what its work should take on this machine."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from torch.overrides import TorchFunctionMode

from app.settings import number

LONGEST = number("RUN_SECONDS", 120)
"""Seconds for one run, whatever the model; what a view computes takes several, and has three times as many."""
LEAST = 10.0
"""Seconds that any run has: another program may have the machine for a while."""
TIMES = 10.0
"""As much longer than usual a run may take."""


class TooSlow(Exception):
    """The work took longer than it may; `seconds` were allowed."""

    def __init__(self, seconds: float):
        super().__init__(f"more than {seconds:.0f} s")
        self.seconds = seconds


class Deadline:
    """Ends in so many seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._begun = time.monotonic()

    @property
    def passed(self) -> float:
        """Seconds since it was set."""
        return time.monotonic() - self._begun

    def check(self) -> None:
        """Raise `TooSlow` where it is over."""
        if self.passed > self.seconds:
            raise TooSlow(self.seconds)


class Watch(TorchFunctionMode):
    """While it is entered, something is called before every PyTorch function that this thread calls, so that a long stage of a
    model ends too; a single one of those is not interrupted, and has a part of the model's multiply-adds.

    Args:
        check: raises what ends the work.
    """

    def __init__(self, check: Callable[[], object]):
        super().__init__()
        self._check = check

    def __torch_function__(
        self, function: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._check()
        return function(*args, **(kwargs or {}))


class Pace:
    """Seconds that a thousand million multiply-adds take here, by the last runs."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque([0.1], maxlen=20)
        self._lock = threading.Lock()

    def deadline(self, gmacs: float) -> Deadline:
        """For a run of this cost that begins now."""
        with self._lock:
            pace = statistics.median(self._seen)
        return Deadline(min(LONGEST, LEAST + TIMES * pace * gmacs))

    def note(self, gmacs: float, seconds: float) -> None:
        """What a run took."""
        with self._lock:
            self._seen.append(seconds / max(gmacs, 1.0))
