"""Finished runs, kept in memory under ids that cannot be guessed, as many as fit."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable

from app.run.run import Run
from app.settings import number
from litedetr.fast.allocator import give_back

KEEP_SECONDS = 60 * number("KEEP_MINUTES", 60)
"""A run that nobody looked into for so long is dropped, and a photo that was uploaded so long ago."""
STORE_BYTES = int(number("STORE_MB", 1024) * 1024**2)
GIVE_BACK_BYTES = 256 * 1024**2


class ExpiredRun(KeyError):
    """The run was dropped to make room, or never was."""


class RunStore:
    """Runs by id. When their bytes pass the limit, who owns the most runs loses one first, the least recently used of them: so
    a crowd with one each keeps what was used last, and a visitor with many takes nobody's place.

    Args:
        limit: bytes.
        keep: seconds after its last use in which `expire` leaves a run alone.
    """

    def __init__(self, limit: int = STORE_BYTES, keep: float = KEEP_SECONDS):
        self.limit, self.keep = limit, keep
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._used: dict[str, float] = {}
        self._owners: dict[str, Hashable] = {}
        self._freed = 0
        self._lock = threading.Lock()

    def put(self, run: Run, owner: Hashable = None) -> Run:
        """Keep a run; one that is larger than the limit is kept alone.

        Args:
            owner: who asked for it; None for nobody in particular, as with an example.
        """
        with self._lock:
            self._runs[run.id] = run
            self._owners[run.id] = run.id if owner is None else owner
            self._use(run.id)
            self._trim()
        self._give_back()
        return run

    def trim(self) -> None:
        """Make room after a run grew by what was computed from it."""
        with self._lock:
            self._trim()
        self._give_back()

    def _trim(self) -> None:
        while len(self._runs) > 1 and self._bytes() > self.limit:
            counts = Counter(self._owners.values())
            most = max(counts.values())
            self._drop(next(name for name in self._runs if counts[self._owners[name]] == most))

    def _drop(self, name: str) -> None:
        run = self._runs.pop(name)
        del self._used[name], self._owners[name]
        self._freed += run.nbytes

    def _give_back(self) -> None:
        """What dropped runs held goes back to the system now and then; not each time, because that takes a while."""
        if self._freed > GIVE_BACK_BYTES:
            self._freed = 0
            give_back()

    def _use(self, run_id: str) -> None:
        self._runs.move_to_end(run_id)
        self._used[run_id] = time.monotonic()

    def expire(self) -> int:
        """Drop what nobody looked into for long; how many."""
        with self._lock:
            before = len(self._runs)
            while self._runs and time.monotonic() - self._used[next(iter(self._runs))] > self.keep:
                self._drop(next(iter(self._runs)))
            dropped = before - len(self._runs)
        self._give_back()
        return dropped

    def get(self, run_id: str) -> Run:
        """The run, now the most recently used.

        Raises:
            ExpiredRun: it is not here (any more).
        """
        with self._lock:
            try:
                self._use(run_id)
            except (KeyError, TypeError):
                raise ExpiredRun(run_id) from None
            return self._runs[run_id]

    def __contains__(self, run_id: str) -> bool:
        with self._lock:
            return run_id in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        layers = dict(run.layers for run in self._runs.values())
        return sum(run.nbytes for run in self._runs.values()) + sum(layers.values())
