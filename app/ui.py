"""The page: layout and event wiring only."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakValueDictionary

import anyio
import gradio as gr
import orjson
from starlette.responses import Response

from app.engine.engine import EXAMPLE_NAMES, Engine
from app.engine.jobs import OF_AN_ADDRESS
from app.engine.models import hub_is_open
from app.run.model_list import offered
from app.run.state import ViewState
from app.server.cleanup import cleanup
from app.server.endpoints import MCP, add_endpoints
from app.server.events import run_events, work_events
from app.server.guard import MAX_FILE, Page, client_of, guards
from app.server.lookups import Lookups
from app.server.routes import routes
from app.server.uploads import forget_photos, photo_box, sender
from app.stage import HEAD, events, stage
from app.views import VIEWS
from litedetr.processors import granted

_PRIVATE = {"api_visibility": "private", "queue": True, "show_progress": "hidden", "concurrency_limit": None}
"""Jobs wait in the engine's own queue, which tells them their place; not in Gradio's."""


def build(engine: Engine) -> gr.Blocks:
    """The page over an engine. Start it with ``page.launch(**launch_options(engine))``."""
    lookups, jobs = Lookups(engine.store), engine.jobs

    # A click takes little of a processor, and waits for one while runs have them all: several wait side by side, so that a
    # classroom behind one address does not wait in a row; and one address leaves room for others.
    processors = granted()
    few = anyio.CapacityLimiter(3 * processors)
    one = anyio.CapacityLimiter(1)  # for runs whose figures take long: their visitors wait for each other, not others for them
    of_an_address: WeakValueDictionary[str, anyio.CapacityLimiter] = WeakValueDictionary()

    async def answered(method: Callable[[Any], dict[str, Any]], request: Any) -> Response:
        def work() -> Response:  # as JSON at once: the server would go through every number of it, and keep others waiting
            with engine.looks:
                return Response(orjson.dumps(method(request)), media_type="application/json")

        async with of_an_address.setdefault(sender.get(), anyio.CapacityLimiter(2 * processors)):
            return await anyio.to_thread.run_sync(work, limiter=one if lookups.heavy(request) else few)

    async def open_run(request: Any) -> Response:
        return await answered(lookups.open, request)

    async def look(request: Any) -> Response:
        return await answered(lookups.look, request)

    def cancel(request: Any) -> dict[str, Any]:
        """Cancel a visitor's jobs up to ``ticket``."""
        request = _given(request)
        jobs.cancel(request.get("visitor"), request.get("ticket"))
        return {}

    async def analyse(file: str | None, asked: Any, request: gr.Request) -> AsyncIterator[Any]:
        """Run the model on a photo or an example, with an event as each stage begins."""
        asked = _given(asked)
        ticket, visitor, client = asked.get("ticket"), asked.get("visitor"), client_of(request)
        example, model = str(asked.get("example") or ""), str(asked.get("model") or "")
        lang = ViewState.from_query({"lang": asked.get("lang")}).lang
        async for event in run_events(engine, file, example, lang, model, lambda: jobs.is_cancelled(visitor, ticket), client):
            yield gr.update(run_event={"ticket": ticket, **event})

    async def work(asked: Any, request: gr.Request) -> AsyncIterator[Any]:
        """Compute what a view needs the model for again."""
        asked = _given(asked)
        ticket, visitor, client = asked.get("ticket"), asked.get("visitor"), client_of(request)
        state = ViewState.from_query(asked.get("state"))
        async for event in work_events(engine, asked.get("run"), state, lambda: jobs.is_cancelled(visitor, ticket), client):
            yield gr.update(work_event={"ticket": ticket, **event})

    with Page(title="Lite DETR, live", analytics_enabled=False, fill_width=True, delete_cache=(1800, 3600)) as page:
        functions = [open_run, look, cancel]
        viewer = stage(functions, examples=EXAMPLE_NAMES, views=VIEWS.values(), models=offered(), hub=hub_is_open())
        arriving = events()
        # The page fills these two from JavaScript, so that Gradio itself checks where an uploaded file lies.
        upload = photo_box()
        asked = gr.JSON(visible=False)
        viewer.analyse(
            analyse,
            inputs=[upload, asked],
            outputs=[arriving],
            js="() => window.liteDetr.runRequest()",
            trigger_mode="multiple",
            **_PRIVATE,
        )
        wanted = gr.JSON(visible=False)
        viewer.work(
            work,
            inputs=[wanted],
            outputs=[arriving],
            js="() => window.liteDetr.work.jobRequest()",
            trigger_mode="multiple",
            **_PRIVATE,
        )
        add_endpoints(engine)
    return page.queue(max_size=256)


def serve(page: gr.Blocks, engine: Engine, **where: Any) -> None:
    """Start the page, until the process is told to end: jobs end with a sentence then, and photos go.

    Args:
        where: Gradio's ``server_name``, ``server_port``, ``share``.
    """

    def end(*_: Any) -> None:
        engine.jobs.closed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        page.launch(prevent_thread_lock=True, **where, **launch_options(engine))
        if page.server_name == "0.0.0.0" and (address := own_address()):
            print(f"* For everybody in the same network: http://{address}:{page.server_port}", flush=True)
        page.block_thread()
    finally:
        forget_photos()
        if engine.jobs.closed:
            os._exit(0)  # whatever still computes in a thread is nobody's any more


def own_address() -> str | None:
    """This machine's address in its network; None where it is in none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # of nobody, and nothing is sent: it only chooses the way out
        except OSError:
            return None
        return asked.getsockname()[0]


SESSIONS = 100
"""Visitors of whom Gradio remembers anything; nothing of ours hangs on it."""


def launch_options(engine: Engine) -> dict[str, Any]:
    """What the server needs besides the page."""
    return {
        "head": HEAD,
        "theme": gr.themes.Base(font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "app_kwargs": {"routes": routes(engine.store), "lifespan": cleanup(engine.store), **guards()},
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "ssr_mode": False,
        "max_file_size": MAX_FILE,
        "state_session_capacity": SESSIONS,
        "max_threads": 4 * OF_AN_ADDRESS,  # jobs under way: what they wait for is the engine's
        "mcp_server": MCP,
    }


def _given(request: Any) -> dict[str, Any]:
    return request if isinstance(request, dict) else {}
