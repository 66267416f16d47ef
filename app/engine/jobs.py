"""Jobs of visitors, one each: a newer one, a press on Cancel or a closed tab cancels the one before."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

from app.engine.queue import BEAT, LONGEST, Client, QueueFull

log = logging.getLogger(__name__)

OF_AN_ADDRESS = LONGEST + 8
"""So many jobs of one address are under way at a time: those that wait for the model, and some that wait for a download."""
GAP = 0.1
"""Seconds between two events of a job: Gradio needs two milliseconds of the interpreter for each, and look-ups wait for those."""
VISITORS = 4096
"""So many are remembered, the last ones."""
_VISITOR = re.compile(r"^[a-z0-9]{8,40}\Z")

Event = dict[str, Any]
"""What a job says of itself on its way, and at its end."""
Report = Callable[[Event], None]
"""Called with each event; raises `Cancelled` where nobody waits for the result any more."""


class Cancelled(Exception):
    """The visitor does not want the result any more."""


class Jobs:
    """Up to which ticket each visitor's jobs are cancelled. A visitor counts tickets up and names itself by chance."""

    def __init__(self) -> None:
        self._cancelled: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self.closed = False
        """Whether the page ends: all jobs do then, with a sentence."""

    @contextmanager
    def place(self, client: Client) -> Iterator[None]:
        """One more job of an address while the body lasts, whatever it waits for.

        Raises:
            QueueFull: so many of them are under way already.
        """
        with self._lock:
            if self._under_way[client.address] >= OF_AN_ADDRESS:
                raise QueueFull
            self._under_way[client.address] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[client.address] -= 1
                self._under_way += Counter()  # without those that have none

    def cancel(self, visitor: Any, ticket: Any) -> None:
        """End a visitor's jobs up to this ticket, running or waiting; anything strange is ignored."""
        if not isinstance(visitor, str) or not _VISITOR.match(visitor) or not isinstance(ticket, int):
            return
        with self._lock:
            self._cancelled[visitor] = max(ticket, self._cancelled.get(visitor, ticket))
            self._cancelled.move_to_end(visitor)
            while len(self._cancelled) > VISITORS:
                self._cancelled.popitem(last=False)

    def is_cancelled(self, visitor: Any, ticket: Any) -> bool:
        """Whether nobody waits for this job any more."""
        with self._lock:
            return isinstance(visitor, str) and isinstance(ticket, int) and ticket <= self._cancelled.get(visitor, -1)


async def follow(
    act: Callable[[Report], Event],
    cancelled: Callable[[], bool],
    sorry: str,
    end: Callable[[], Event] = lambda: {"cancelled": True},
) -> AsyncIterator[Event]:
    """Do something in a thread and give its events as they come. Waiting for them keeps no thread of the server.

    Events come at least `GAP` seconds apart, but for the last one. The newest is given again every `BEAT` seconds: a server
    notices only then that its reader has left.

    Args:
        act: does it, and gives the last event; it calls its argument with each event before that, and that raises
            `Cancelled` where nobody waits any more.
        cancelled: whether the job was cancelled.
        sorry: the sentence for a failure that nobody foresaw.
        end: the last event of a job that was cancelled.

    Yields:
        What `act` reported, without what became old before anybody read it; at the end what it gave, what `end` gives, or
        ``{"error": sorry}``.
    """
    loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[Event, bool]]()
    due = 0.0  # when the next event may go
    left = threading.Event()  # nobody reads the events any more: the connection is gone

    def put(event: Event, last: bool) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(events.put_nowait, (event, last))

    def report(event: Event) -> None:
        if left.is_set() or cancelled():
            raise Cancelled
        put(event, False)

    def work() -> None:
        try:
            if cancelled():
                raise Cancelled
            last = act(report)
        except Cancelled:
            last = end()
        except BaseException:  # whatever ends this thread, its reader must know of it
            log.exception("A job failed")
            last = {"error": sorry}
        put(last, True)

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        event, last = None, False
        while not last:
            try:
                event, last = await asyncio.wait_for(events.get(), BEAT)
            except TimeoutError:
                if event is None:
                    continue
            while not last and (not events.empty() or due > loop.time()):
                if not events.empty():
                    event, last = events.get_nowait()
                    continue
                with suppress(TimeoutError):
                    event, last = await asyncio.wait_for(events.get(), due - loop.time())
            yield event
            due = loop.time() + GAP
    finally:
        left.set()
