"""The queue before the model: clients take turns, each in the order in which it came, and whoever waits is told its place."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from app.settings import number

T = TypeVar("T")

LONGEST = int(number("QUEUE", 32, former="LINE"))
"""So many may wait."""
AHEAD, AHEAD_OF_ONE = 4, 2
"""So many photos are decoded while others wait or run, and so many of them for one address."""
MEMORY = 60.0
"""Seconds for which a turn counts against those that its client asks for next."""
NEAR = 3
"""From this place on a change is told at once, further behind with the next `BEAT`."""
BEAT = 1.0
"""Seconds after which those who wait are told again, so that who left is noticed."""


class QueueFull(Exception):
    """So many wait already that one more would wait too long."""


@dataclass(frozen=True)
class Client:
    """Who waits: a visitor at an address. Names of visitors are invented easily, addresses are not."""

    address: str = ""
    visitor: str = ""


@dataclass(eq=False)
class _Place:
    client: Client
    prepares: bool = False  # its photo is being decoded, or is, and takes memory
    alone: bool = False
    ready: bool = False
    runs: bool = False
    lost: bool = False


class Queue:
    """Who has the model and who waits for it.

    Addresses take turns, at an address its visitors, and a visitor waits behind itself: somebody with many jobs comes last with
    the next one. Where the queue is full, the last place of the address that has the most goes to one that has fewer.

    Args:
        longest: so many may wait.
        at_once: so many have the model at a time.
    """

    def __init__(self, longest: int = LONGEST, at_once: int = 1):
        self.longest, self.at_once = longest, at_once
        self._places: list[_Place] = []  # as they came
        self._turns: list[tuple[float, Client]] = []  # of the last minute
        self._moved = threading.Condition()

    @contextmanager
    def turn(
        self,
        client: Client = Client(),
        waiting: Callable[[int], object] | None = None,
        prepare: Callable[[Callable[[], object]], Any] | None = None,
        alone: bool = False,
    ) -> Iterator[Any]:
        """Wait for the model and have it for the body's time.

        Args:
            client: who waits.
            waiting: told how many are before (0 while its photo is decoded and nobody has the model), when that changes and
                every `BEAT` seconds; what it raises ends the wait.
            prepare: what is done before the turn, shortly before it comes, while others have the model; it is given what it
                should call now and then, which raises where nobody waits any more. Its result is the context's value.
            alone: nobody else has the model then, because time is measured, or for want of memory.

        Raises:
            QueueFull: too many wait.
        """
        me = self._join(client, alone)

        def report(before: int) -> None:
            if me.lost:
                raise QueueFull
            if waiting is not None:
                waiting(before)

        try:
            prepared = None
            if prepare is not None:
                self._wait(me, report, self._may_prepare, "prepares")
                prepared = prepare(lambda: report(self._before(me)))
            me.ready = True
            self._wait(me, report, self._may_run, "runs")
            with self._moved:
                self._turns.append((time.monotonic(), client))
            yield prepared
        finally:
            with self._moved:
                self._places.remove(me)
                self._moved.notify_all()

    def _join(self, client: Client, alone: bool) -> _Place:
        with self._moved:
            staying = [place for place in self._order() if not place.lost]
            if len(staying) > self.longest:
                counts = Counter(place.client.address for place in staying if not place.runs)
                most = max(counts.values())
                if counts[client.address] + 1 >= most:
                    raise QueueFull
                next(place for place in reversed(staying) if counts[place.client.address] == most).lost = True
            me = _Place(client, alone=alone)
            self._places.append(me)
            self._moved.notify_all()
        return me

    def _wait(self, me: _Place, report: Callable[[int], None], may: Callable[[_Place], bool], what: str) -> None:
        """Until `may` says so, which is asked whenever somebody moved; `what` of the place is true then."""
        while True:
            with self._moved:
                if may(me):
                    setattr(me, what, True)
                    self._moved.notify_all()
                    return
                before = self._order().index(me)
            report(before)
            with self._moved:
                self._moved.wait_for(lambda before=before: me.lost or may(me) or self._nearer(me, before), BEAT)

    def _nearer(self, me: _Place, before: int) -> bool:
        """Whether its place changed, and it is near enough to be told at once."""
        now = self._order().index(me)
        return now != before and now <= NEAR

    def _may_prepare(self, me: _Place) -> bool:
        ahead = [place.client.address for place in self._places if place.prepares and not place.runs]
        return len(ahead) < AHEAD and ahead.count(me.client.address) < AHEAD_OF_ONE

    def _may_run(self, me: _Place) -> bool:
        running = [place for place in self._places if place.runs]
        room = len(running) < self.at_once and not any(place.alone for place in running) and not (me.alone and running)
        return room and next(place for place in self._order() if place.ready and not place.runs) is me

    def _before(self, me: _Place) -> int:
        with self._moved:
            return self._order().index(me)

    def _order(self) -> list[_Place]:
        """Those who run, then those who wait, as they would come."""
        since = time.monotonic() - MEMORY
        self._turns = [turn for turn in self._turns if turn[0] > since]
        visitors = Counter(client for _, client in self._turns)
        addresses = Counter(client.address for _, client in self._turns)
        runs = [place for place in self._places if place.runs]
        rounds: dict[str, list[tuple[int, int, _Place]]] = defaultdict(list)
        for arrival, place in enumerate(place for place in self._places if not place.runs and not place.lost):
            rounds[place.client.address].append((visitors[place.client], arrival, place))
            visitors[place.client] += 1
        waits = []
        for address, places in rounds.items():
            for turn, (_, arrival, place) in enumerate(sorted(places, key=lambda entry: entry[:2]), start=addresses[address]):
                waits.append((turn, arrival, place))
        lost = [place for place in self._places if place.lost]
        return runs + [place for _, _, place in sorted(waits, key=lambda entry: entry[:2])] + lost

    def __len__(self) -> int:
        return len(self._places)
