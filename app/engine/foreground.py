"""What somebody waits for in this moment, before what takes long anyway."""

from __future__ import annotations

import threading
import time
from types import TracebackType

LONGEST = 0.05
"""Seconds for which a stage of long work pauses: clicks without end do not stop it."""


class Foreground:
    """Short work is done inside ``with``; long work pauses between its parts (`Pauses`). Both have the interpreter and the
    processors in common, and a click that has to share them takes ten times as long, while a run is hardly shorter for it."""

    def __init__(self) -> None:
        self._inside = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> float:
        """Until no short work is under way, but at most so long; the seconds that it took."""
        begun = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: not self._inside, seconds)
        return time.monotonic() - begun


class Pauses:
    """Of one long work, for what is done in the foreground: call `stage` as a stage begins, `part` before each of its parts."""

    def __init__(self, foreground: Foreground) -> None:
        self._foreground, self._left = foreground, 0.0

    def stage(self) -> None:
        self._left = LONGEST
        self.part()

    def part(self) -> None:
        """Pause, if this stage has not paused for `LONGEST` yet."""
        if self._left > 0:
            self._left -= self._foreground.wait(self._left)
