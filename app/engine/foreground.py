"""What somebody waits for in this moment, before what takes long anyway."""

from __future__ import annotations

import threading
from types import TracebackType

LONGEST = 0.05
"""Seconds for which long work pauses at a time: clicks without end do not stop it."""


class Foreground:
    """Short work is done inside ``with``; long work calls `wait` between its parts. Both have the interpreter and the processors
    in common, and a click that has to share them takes ten times as long, while a run is hardly shorter for it."""

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

    def wait(self) -> None:
        """Until no short work is under way, but at most `LONGEST`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inside, LONGEST)
