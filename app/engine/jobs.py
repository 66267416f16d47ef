"""Who waits for the model: one order a visitor. A newer one, a press on Cancel or a closed tab ends the one before."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from typing import Any

from app.engine.queue import BEAT

log = logging.getLogger(__name__)

VISITORS = 4096
"""So many are remembered, the last ones."""
_VISITOR = re.compile(r"^[a-z0-9]{8,40}\Z")

News = dict[str, Any]
Tell = Callable[[News], None]
"""Told each piece of news; raises `Cancelled` where nobody waits for the result any more."""


class Cancelled(Exception):
    """The visitor does not want the result any more."""


class Orders:
    """Up to which number each visitor's orders are cancelled. A visitor counts orders up and names itself by chance."""

    def __init__(self) -> None:
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def cancel(self, visitor: Any, ticket: Any) -> None:
        """End a visitor's orders up to this number, running or waiting; anything strange is ignored."""
        if not isinstance(visitor, str) or not _VISITOR.match(visitor) or not isinstance(ticket, int):
            return
        with self._lock:
            self._ended[visitor] = max(ticket, self._ended.get(visitor, ticket))
            self._ended.move_to_end(visitor)
            while len(self._ended) > VISITORS:
                self._ended.popitem(last=False)

    def ended(self, visitor: Any, ticket: Any) -> bool:
        """Whether nobody waits for this order any more."""
        with self._lock:
            return isinstance(visitor, str) and isinstance(ticket, int) and ticket <= self._ended.get(visitor, -1)


async def follow(act: Callable[[Tell], News], ended: Callable[[], bool], sorry: str) -> AsyncIterator[News]:
    """Do something in a thread and give its news as they come. Waiting for them keeps no thread of the server.

    What was told last is told again every `BEAT` seconds: a server notices only then that its reader has left.

    Args:
        act: does it, and gives the last piece of news; it calls its argument with each piece before that, and that raises
            `Cancelled` where nobody waits any more.
        ended: whether the order was cancelled.
        sorry: the sentence for a failure that nobody foresaw.

    Yields:
        What `act` told, without what became old before anybody read it; at the end what it gave, ``{"cancelled": True}``, or
        ``{"error": sorry}``.
    """
    loop, news = asyncio.get_running_loop(), asyncio.Queue[tuple[News, bool]]()
    left = threading.Event()  # nobody reads the news any more: the connection is gone

    def put(item: News, last: bool) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(news.put_nowait, (item, last))

    def tell(item: News) -> None:
        if left.is_set() or ended():
            raise Cancelled
        put(item, False)

    def work() -> None:
        try:
            if ended():
                raise Cancelled
            last = act(tell)
        except Cancelled:
            last = {"cancelled": True}
        except BaseException:  # whatever ends this thread, its reader must hear of it
            log.exception("An order failed")
            last = {"error": sorry}
        put(last, True)

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        item, last = None, False
        while not last:
            try:
                item, last = await asyncio.wait_for(news.get(), BEAT)
            except TimeoutError:
                if item is None:
                    continue
            while not last and not news.empty():
                item, last = news.get_nowait()
            yield item
    finally:
        left.set()
