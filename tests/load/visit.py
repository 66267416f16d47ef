"""What one visitor does: uploads a photo, waits, clicks; and whether what it got is its own."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.engine.engine import Engine
from tests.load import photos
from tests.load.visitor import Visitor, Waiting

VIEWS = ("points", "detections", "attended", "desire", "lookers", "onion")
"""Views that a click changes; those that need the model again are left out."""


@dataclass
class Visit:
    """One visitor's photo, what it asked and what came.

    Attributes:
        photo: number of the photo.
        opened: what the page said of the run.
        asked, answers: the look-ups, in order.
        times: of each look-up: when it began (as `time.monotonic`), and its seconds.
        error: what went wrong, "" for nothing.
    """

    photo: int
    opened: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)
    waiting: Waiting = field(default_factory=Waiting)
    error: str = ""


async def visit(url: str, number: int, clicks: int, side: int = 0, pause: float = 0.0) -> Visit:
    """Upload photo `number`, wait for its result and click.

    Args:
        url: of the page.
        number: of the photo, and of the clicks' places.
        clicks: look-ups, one after the other.
        side: longest side of the photo in pixels; 0 for what it has.
        pause: seconds between an answer and the next click.
    """
    made = Visit(number)
    chance = np.random.default_rng(number)
    photo = await asyncio.to_thread(photos.photo, number, side)
    async with Visitor(url) as visitor:
        file = await visitor.upload(photo, f"photo {number}.jpg")
        made.waiting = await Waiting().follow(visitor.analyse(file))
        run = made.waiting.last.get("run")
        if run is None:
            made.error = str(made.waiting.last)
            return made
        made.opened = await visitor.ask("open_run", run=run, state={"lang": "en"})
        state: dict[str, str] = {"t": "0.1"}
        for click in range(clicks):
            if click % 4 == 0:
                state = {"t": "0.1", "view": VIEWS[(number + click // 4) % len(VIEWS)]}
            request = {"state": state, "seq": click, "pick": chance.uniform(0.05, 0.95, 2).round(3).tolist()}
            begun = time.monotonic()
            answer = await visitor.ask("look", run=run, **request)
            made.times.append((begun, time.monotonic() - begun))
            made.asked.append(request)
            made.answers.append(answer)
            if "error" in answer:
                made.error = str(answer)
                return made
            state = answer["state"]
            await asyncio.sleep(pause)
    return made


def wrong(engine: Engine, made: Visit, side: int = 0) -> list[str]:
    """Where a visit's answers are not those that its photo gets alone, in an engine that nobody else uses."""
    if made.error:
        return [made.error]
    opened, answers = photos.alone(engine, photos.photo(made.photo, side), f"photo {made.photo}.jpg", made.asked)
    return photos.differences([made.opened, *made.answers], [opened, *answers])
