"""The queue before the model: one after the other, first come first served, and whoever waits is told its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.settings import number

LONGEST = int(number("QUEUE", 32, former="LINE"))
"""So many may wait."""
BEAT = 1.0
"""Seconds after which those who wait are told again, so that who left is noticed."""


class QueueFull(Exception):
    """So many wait already that one more would wait too long."""


class Queue:
    """Who has the model and who waits for it.

    Args:
        longest: so many may wait.
    """

    def __init__(self, longest: int = LONGEST):
        self.longest = longest
        self._waiting: list[object] = []  # the first one has the model
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, waiting: Callable[[int], None] | None = None) -> Iterator[None]:
        """Wait for the model and have it for the body's time.

        Args:
            waiting: told how many are before, when that changes and every `BEAT` seconds; what it raises ends the wait.

        Raises:
            QueueFull: at once, where too many wait.
        """
        me = object()
        with self._moved:
            if len(self._waiting) > self.longest:
                raise QueueFull
            self._waiting.append(me)
        try:
            while before := self._before(me):
                if waiting is not None:
                    waiting(before)
                with self._moved:
                    self._moved.wait_for(lambda before=before: self._waiting.index(me) < before, BEAT)
            yield
        finally:
            with self._moved:
                self._waiting.remove(me)
                self._moved.notify_all()

    def _before(self, me: object) -> int:
        with self._moved:
            return self._waiting.index(me)

    def __len__(self) -> int:
        return len(self._waiting)
