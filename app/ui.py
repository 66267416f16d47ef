"""The page: layout and event wiring only."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import gradio as gr

from app.engine.engine import EXAMPLE_NAMES, Engine, ExpiredRun
from app.engine.jobs import News, Tell, follow
from app.engine.models import hub_is_open
from app.engine.out_of_memory import NoMemory
from app.engine.queue import FullLine
from app.i18n import say
from app.run.model_list import offered
from app.run.state import ViewState
from app.server.cleanup import photo_box, tidying
from app.server.endpoints import MCP, add_endpoints
from app.server.guard import MAX_FILE, Page, guards
from app.server.lookups import Lookups
from app.server.routes import routes
from app.stage import HEAD, stage
from app.views import VIEWS
from litedetr.image import PhotoError
from litedetr.weights import WeightsError

_PROGRAMS = {"concurrency_limit": 4, "concurrency_id": "programs"}
_PRIVATE = {"api_visibility": "private", "queue": True, "show_progress": "hidden", "concurrency_limit": None}
"""Orders wait in the engine's own line, which tells them their place; not in Gradio's queue."""


def build(engine: Engine) -> gr.Blocks:
    """The page over an engine. Start it with ``page.launch(**launch_options(engine))``."""
    lookups, orders = Lookups(engine.store), engine.orders

    # More at once would only take the interpreter from each other, and from the server.
    few = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def open_run(request: Any) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(lookups.open, request, limiter=few)

    async def look(request: Any) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(lookups.look, request, limiter=few)

    def cancel(request: Any) -> dict[str, Any]:
        """End a visitor's orders up to ``ticket``."""
        request = _given(request)
        orders.cancel(request.get("visitor"), request.get("ticket"))
        return {}

    async def analyse(file: str | None, request: Any) -> AsyncIterator[Any]:
        """Run the model on a photo or an example, telling each stage as it begins."""
        request = _given(request)
        ticket, visitor = request.get("ticket"), request.get("visitor")
        example, model = str(request.get("example") or ""), str(request.get("model") or "")
        lang = ViewState.from_query({"lang": request.get("lang")}).lang
        async for news in _detect_news(engine, file, example, lang, model, lambda: orders.ended(visitor, ticket)):
            yield gr.HTML(news={"ticket": ticket, **news})

    async def work(request: Any) -> AsyncIterator[Any]:
        """Compute what a view needs the model for again, telling how it goes on."""
        request = _given(request)
        ticket, visitor = request.get("ticket"), request.get("visitor")
        state = ViewState.from_query(request.get("state"))
        async for news in _work_news(engine, request.get("run"), state, lambda: orders.ended(visitor, ticket)):
            yield gr.HTML(told={"ticket": ticket, **news})

    with Page(title="Lite DETR, live", analytics_enabled=False, fill_width=True, delete_cache=(1800, 3600)) as page:
        viewer = stage(
            [open_run, look, cancel], examples=EXAMPLE_NAMES, views=VIEWS.values(), models=offered(), hub=hub_is_open()
        )
        # The page fills these two from JavaScript, so that Gradio itself checks where an uploaded file lies.
        upload = photo_box()
        request = gr.JSON(visible=False)
        viewer.analyse(
            analyse,
            inputs=[upload, request],
            outputs=[viewer],
            js="() => window.liteDetr.order()",
            trigger_mode="multiple",
            **_PRIVATE,
        )
        wanted = gr.JSON(visible=False)
        viewer.work(
            work,
            inputs=[wanted],
            outputs=[viewer],
            js="() => window.liteDetr.work.order()",
            trigger_mode="multiple",
            **_PRIVATE,
        )
        add_endpoints(engine, **_PROGRAMS)
    return page.queue(max_size=128)


SESSIONS = 100
"""Visitors of whom Gradio remembers anything; nothing of ours hangs on it."""


def launch_options(engine: Engine) -> dict[str, Any]:
    """What the server needs besides the page."""
    return {
        "head": HEAD,
        "theme": gr.themes.Base(font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "app_kwargs": {"routes": routes(engine.store), "lifespan": tidying(engine.store), **guards()},
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "ssr_mode": False,
        "max_file_size": MAX_FILE,
        "state_session_capacity": SESSIONS,
        "mcp_server": MCP,
    }


def _given(request: Any) -> dict[str, Any]:
    return request if isinstance(request, dict) else {}


def _detect_news(
    engine: Engine, file: str | None, example: str, lang: str, model: str, ended: Callable[[], bool] = lambda: False
) -> AsyncIterator[News]:
    """Run the model and tell how it goes on.

    Yields what `Engine.run` tells, and ``{"run": id}`` or ``{"error": sentence}`` at the end; ``{"refused": sentence}`` where a
    model cannot be had, and the page's own goes on in its place.
    """
    refused: News = {}  # goes with all later news, because the page sees only the newest of what comes fast

    def run(source: str, tell: Tell) -> News:
        def told(news: News) -> None:
            tell(news | refused)

        if file:
            made = engine.run(file, Path(file).name, told, source)
        elif example:
            made = engine.example(example, told, source)
        else:
            raise PhotoError(say(lang, "error.no_photo"))
        return {"run": made.id} | refused

    def act(tell: Tell) -> News:
        try:
            try:
                return run(model, tell)
            except WeightsError as error:
                if not model:
                    raise
                refused["refused"] = str(error)
                return run("", tell)
        except (PhotoError, WeightsError) as error:
            return {"error": str(error)} | refused
        except NoMemory:
            return {"error": say(lang, "error.memory")}
        except FullLine:
            return {"error": say(lang, "error.line")}

    return follow(act, ended, say(lang, "error.inside"))


def _work_news(engine: Engine, run_id: Any, state: ViewState, ended: Callable[[], bool]) -> AsyncIterator[News]:
    """Compute what a view needs the model for, and tell how it goes on.

    Yields what `Engine.compute` tells, and ``{"done": key}`` or ``{"error": sentence}`` at the end.
    """

    def act(tell: Tell) -> News:
        try:
            return {"done": engine.compute(engine.store.get(run_id), state, tell)}
        except ExpiredRun:
            return {"error": say(state.lang, "error.expired")}
        except WeightsError as error:
            return {"error": str(error)}
        except NoMemory:
            return {"error": say(state.lang, "error.memory")}
        except FullLine:
            return {"error": say(state.lang, "error.line")}

    return follow(act, ended, say(state.lang, "error.inside"))
