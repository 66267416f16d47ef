"""Finished runs, kept in memory under ids that cannot be guessed, as many as fit."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict

from app.engine.queue import Client
from app.run.run import Run
from app.settings import number
from litedetr.fast.allocator import give_back

KEEP_SECONDS = 60 * number("KEEP_MINUTES", 60)
"""A run that nobody looked into for so long is dropped, and a photo that was uploaded so long ago."""
STORE_BYTES = int(number("STORE_MB", 1024) * 1024**2)
OF_AN_ADDRESS, OF_A_VISITOR = 0.5, 0.25
"""Shares of the store: who holds more makes room for the others."""
GIVE_BACK_BYTES = 256 * 1024**2


class ExpiredRun(KeyError):
    """The run was dropped to make room, or never was."""


class RunStore:
    """Runs by id. When their bytes pass the limit, who holds more than a share of them loses one first, or else who has the most
    runs: always its least recently used one. So a crowd with one each keeps what was used last, and neither a visitor with many
    nor one with large ones takes the others' places.

    Args:
        limit: bytes.
        keep: seconds after its last use in which `expire` leaves a run alone.
    """

    def __init__(self, limit: int = STORE_BYTES, keep: float = KEEP_SECONDS):
        self.limit, self.keep = limit, keep
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._used: dict[str, float] = {}
        self._owners: dict[str, Client] = {}
        self._freed = 0
        self._lock = threading.Lock()

    def put(self, run: Run, owner: Client | None = None) -> Run:
        """Keep a run; one that is larger than the limit is kept alone.

        Args:
            owner: who asked for it; None for nobody in particular, as with an example.
        """
        with self._lock:
            self._runs[run.id] = run
            self._owners[run.id] = owner or Client(visitor=run.id)
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
            self._drop(self._first_to_go())

    def _first_to_go(self) -> str:
        """Of an address with more than its share, or of all: of a visitor with more than its share, or of one with the most."""
        addresses, visitors, counts = Counter[str](), Counter[Client](), Counter[Client]()
        for name, run in self._runs.items():
            owner = self._owners[name]
            addresses[owner.address] += run.nbytes
            visitors[owner] += run.nbytes
            counts[owner] += 1
        known = [owner for owner in counts if owner.address]  # others are nobody in particular, as with an example
        greedy = [owner for owner in known if addresses[owner.address] > self.limit * OF_AN_ADDRESS]
        heaviest = max(greedy or known, key=lambda owner: visitors[owner], default=None)
        owners = greedy or list(counts)
        if heaviest is not None and visitors[heaviest] > self.limit * OF_A_VISITOR:
            owners = [heaviest]
        most = max(counts[owner] for owner in owners)
        losing = {owner for owner in owners if counts[owner] == most}
        return next(name for name in self._runs if self._owners[name] in losing)

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
