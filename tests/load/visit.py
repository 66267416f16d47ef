"""What one visitor does: brings a photo or takes an example, waits, clicks; and whether what it got is its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import numpy as np

from app.engine.engine import EXAMPLE_NAMES, Engine
from app.engine.jobs import Event
from app.views import VIEWS
from tests.load import photos
from tests.load.visitor import PATIENCE, Visitor, Waiting

NAMES = tuple(VIEWS)
TRIES = 3
"""In a row, as in the page."""


@dataclass
class Visit:
    """One visitor's photo, what it asked and what came.

    Attributes:
        photo: number of the photo.
        example: name of the example picture, "" for a photo of the visitor's own.
        opened: what the page said of the run.
        asked, answers: the look-ups, in order.
        times: of each look-up: when it began (as `time.monotonic`), and its seconds.
        remade: how often the run had gone and was made again from the photo.
        error: what went wrong, "" for nothing.
    """

    photo: int
    example: str = ""
    opened: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)
    waiting: Waiting = field(default_factory=Waiting)
    remade: int = 0
    error: str = ""


async def visit(
    url: str, number: int, clicks: int, side: int = 0, pause: float = 0.0, kinds: int = 3, after: float = 0.0
) -> Visit:
    """Upload photo `number`, wait for its result and click; every view in turn, as many clicks in each.

    A run that the server has no longer is made again from the photo, as the page does it; a server that cannot be reached for a
    while is asked again.

    Args:
        url: of the page.
        number: of the photo, and of the clicks' places.
        clicks: look-ups, one after the other.
        side: longest side of the photo in pixels; 0 for what it has.
        pause: seconds between an answer and the next click.
        kinds: of visitors: by number, one with a photo, one with an example, one with both.
        after: seconds until it comes.
    """
    made = Visit(number, EXAMPLE_NAMES[number % len(EXAMPLE_NAMES)] if number % kinds == 1 else "")
    await asyncio.sleep(after)
    photo = await asyncio.to_thread(photos.photo, number, side)
    visitor = Visitor(url)
    try:
        await _again(visitor.__aenter__)
        await _clicks(visitor, made, photo, clicks, pause, first=number % kinds == 2)
    except Lost as error:
        made.error = str(error)
    finally:
        await visitor.http.aclose()
    return made


async def _clicks(visitor: Visitor, made: Visit, photo: bytes, clicks: int, pause: float, first: bool) -> None:
    """Everything after the page is there; `first` sees an example before its photo."""
    chance = np.random.default_rng(made.photo)
    if first:
        await _run(visitor, Visit(made.photo, EXAMPLE_NAMES[made.photo % len(EXAMPLE_NAMES)]), photo)
    run = await _run(visitor, made, photo)
    made.opened = await _again(lambda: visitor.ask("open_run", run=run, state={"lang": "en"}))
    state: dict[str, str] = {}
    each = -(-clicks // len(NAMES))
    for click in range(clicks):
        if click % each == 0:
            state = {"t": "0.1", "view": NAMES[(made.photo + click // each) % len(NAMES)]}
        request = {"state": state, "seq": click, "pick": chance.uniform(0.05, 0.95, 2).round(3).tolist()}
        for _ in range(TRIES):
            begun = time.monotonic()
            answer = await _again(partial(visitor.ask, "look", run=run, **request))
            if not answer.get("expired"):
                break
            made.remade += 1
            run = await _run(visitor, made, photo)
        made.times.append((begun, time.monotonic() - begun))
        made.asked.append(request)
        made.answers.append(answer)
        if "error" in answer:
            raise Lost(str(answer))
        state = answer["state"]
        await asyncio.sleep(pause)


class Lost(Exception):
    """A visitor has no result."""


async def _run(visitor: Visitor, made: Visit, photo: bytes) -> str:
    """The id of a run, whose wait counts where it is the visit's first."""

    async def once() -> Waiting:
        return await Waiting().follow(await _ordered(visitor, made, photo))

    waiting = await _again(once)
    if not made.asked and not made.waiting.last:
        made.waiting = waiting
    if waiting.last.get("run") is None:
        raise Lost(str(waiting.last))
    return waiting.last["run"]


async def _ordered(visitor: Visitor, made: Visit, photo: bytes) -> AsyncIterator[Event]:
    if made.example:
        return visitor.analyse(example=made.example)
    return visitor.analyse(await visitor.upload(photo, f"photo {made.photo}.jpg"))


async def _again(ask: Callable[[], Any]) -> Any:
    """The answer, asked for again while the server is away."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return await ask()
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.5)


def wrong(engine: Engine, made: Visit, side: int = 0) -> list[str]:
    """Where a visit's answers are not those that its photo gets alone, in an engine that nobody else uses.

    In a crowd a run has one thread, alone all: sums are added in another order, and the nearest of two points may be another.
    So each answer must be the one of either number.
    """
    if made.error:
        return [made.error]
    photo, processors = None if made.example else photos.photo(made.photo, side), engine.processors
    name, given = made.example or f"photo {made.photo}.jpg", [made.opened, *made.answers]
    found = []
    for threads in {1, processors}:
        engine.processors = threads
        engine._examples.clear()  # an example is looked at anew
        try:
            opened, answers = photos.alone(engine, photo, name, made.asked)
        finally:
            engine.processors = processors
        pairs = zip(given, [opened, *answers], strict=True)
        found.append([photos.differences(_timeless(one), _timeless(other)) for one, other in pairs])
    return [line for either in zip(*found, strict=True) for line in min(either, key=len)]


def _timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """The film's summary and charts say how long the run took."""
    return {name: part for name, part in answer.items() if answer.get("view") != "film" or name not in ("summary", "charts")}
