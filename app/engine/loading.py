"""A model on its way into memory, in a thread of its own: the Hub may be slow, and whoever waits for it may leave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from app.engine.jobs import Cancelled
from app.engine.queue import BEAT
from litedetr.weights import Progress

T = TypeVar("T")


class Loading(Generic[T]):
    """Something that is loaded once for all who wait for it, and given up when all of them have left.

    Args:
        load: does it, in a thread; given what to call with (bytes done, bytes in all).
        slot: entered while it goes on, so that few do at once.
    """

    def __init__(self, load: Callable[[Progress], T], slot: AbstractContextManager):
        self._load, self._slot = load, slot
        self._future: Future[T] = Future()
        self._share = 0, 0
        self.waiting = 0

    def join(self) -> None:
        """One more waits; the first one starts it. Call `result` then, and `leave` at the end."""
        self.waiting += 1
        if self.waiting == 1:
            threading.Thread(target=self._work, daemon=True).start()

    def leave(self) -> None:
        """One fewer waits."""
        self.waiting -= 1

    def result(self, progress: Progress) -> T:
        """What was loaded, or what went wrong.

        Args:
            progress: called with (bytes done, bytes in all) every `BEAT` seconds and at the end; what it raises ends the wait.
        """
        while not wait([self._future], BEAT).done:
            progress(*self._share)
        if self._share != (0, 0):
            progress(*self._share)
        return self._future.result()

    def _work(self) -> None:
        try:
            with self._slot:
                self._future.set_result(self._load(self._downloaded))
        except BaseException as error:
            self._future.set_exception(error)

    def _downloaded(self, done: int, total: int) -> None:
        if not self.waiting:
            raise Cancelled
        self._share = done, total
