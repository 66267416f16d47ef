"""The jobs behind the page's two events, as what they yield: events, and at the end a result or a sentence."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from app.engine.engine import NOBODY, Engine
from app.engine.jobs import Event, Report, follow
from app.engine.out_of_memory import NoMemory
from app.engine.queue import Client, QueueFull
from app.engine.store import ExpiredRun
from app.engine.time_limit import TooSlow
from app.i18n import say
from app.run.state import ViewState
from app.server.uploads import PhotoGone, arrived
from litedetr.image import PhotoError
from litedetr.weights import WeightsError


def run_events(
    engine: Engine, file: str | None, example: str, lang: str, model: str, cancelled: Callable[[], bool] = lambda: False,
    client: Client = NOBODY,
) -> AsyncIterator[Event]:  # fmt: skip
    """Run the model on a photo or an example, with an event as each stage begins.

    Yields the events of `Engine.run`, and ``{"run": id}`` or ``{"error": sentence}`` at the end, with ``"expired"`` where the
    photo is no longer on the disk: the page sends it again; ``{"refused": sentence}`` where a model cannot be had, and the
    page's own goes on in its place.
    """
    refused: Event = {}  # goes with all later events, because the page sees only the newest of what comes fast

    def run(source: str, report: Report) -> Event:
        def progress(event: Event) -> None:
            report(event | refused)

        if file:
            made = engine.run(arrived(file, client), Path(file).name, progress, source, client=client)
        elif example:
            made = engine.example(example, progress, source, client)
        else:
            raise PhotoError(say(lang, "error.no_photo"))
        return {"run": made.id} | refused

    def act(report: Report) -> Event:
        try:
            try:
                return run(model, report)
            except WeightsError as error:
                if not model:
                    raise
                refused["refused"] = str(error)
                return run("", report)
        except (PhotoError, WeightsError) as error:
            if not file or os.path.exists(file):
                return {"error": str(error)} | refused
            return {"error": say(lang, "error.gone"), "expired": True}  # it went while it waited
        except PhotoGone:
            return {"error": say(lang, "error.gone"), "expired": True}
        except NoMemory:
            return {"error": say(lang, "error.memory")}
        except TooSlow as error:
            return {"error": say(lang, "error.slow", seconds=round(error.seconds))} | refused

    return _follow(engine, act, cancelled, lang, client)


def work_events(
    engine: Engine, run_id: Any, state: ViewState, cancelled: Callable[[], bool], client: Client = NOBODY
) -> AsyncIterator[Event]:
    """Compute what a view needs the model for again.

    Yields the events of `Engine.compute`, and ``{"done": key}`` or ``{"error": sentence}`` at the end, with ``"expired"`` where
    the run is gone: the page makes it again.
    """

    def act(report: Report) -> Event:
        try:
            return {"done": engine.compute(engine.store.get(run_id), state, report, client)}
        except ExpiredRun:
            return {"error": say(state.lang, "error.expired"), "expired": True}
        except WeightsError as error:
            return {"error": str(error)}
        except NoMemory:
            return {"error": say(state.lang, "error.memory")}
        except TooSlow as error:
            return {"error": say(state.lang, "error.slow", seconds=round(error.seconds))}

    return _follow(engine, act, cancelled, state.lang, client)


def _follow(
    engine: Engine, act: Callable[[Report], Event], cancelled: Callable[[], bool], lang: str, client: Client
) -> AsyncIterator[Event]:
    """The job's events; where the page ends, its own end with a sentence."""
    jobs = engine.jobs

    def end() -> Event:
        return {"error": say(lang, "error.closing")} if jobs.closed else {"cancelled": True}

    def placed(report: Report) -> Event:
        try:
            with jobs.place(client):
                return act(report)
        except QueueFull:
            return {"error": say(lang, "error.queue")}

    return follow(placed, lambda: jobs.closed or cancelled(), say(lang, "error.inside"), end)
