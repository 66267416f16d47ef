"""The page: layout and event wiring only."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.engine import EXAMPLE_NAMES, Engine
from app.lookups import Lookups
from app.models import offered
from app.routes import routes
from app.stage import HEAD, stage
from app.state import ViewState
from app.text import say
from app.views import VIEWS
from litedetr.image import PhotoError
from litedetr.weights import WeightsError

log = logging.getLogger(__name__)

MAX_FILE = "20mb"
_ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "model"}
_PRIVATE = {"api_visibility": "private", "queue": True, "show_progress": "hidden"}


def build(engine: Engine) -> gr.Blocks:
    """The page over an engine. Start it with ``page.launch(**launch_options(engine))``."""
    lookups = Lookups(engine.store)

    def open_run(request: Any) -> dict[str, Any]:
        return lookups.open(request)

    def look(request: Any) -> dict[str, Any]:
        return lookups.look(request)

    def analyse(file: str | None, request: Any) -> Iterator[Any]:
        """Run the model on a photo or an example, telling each stage as it begins."""
        request = request if isinstance(request, dict) else {}
        ticket = request.get("ticket")
        for news in _follow(engine, file, str(request.get("example") or ""), _lang(request), str(request.get("model") or "")):
            yield gr.HTML(news={"ticket": ticket, **news})

    def detect(photo: str, threshold: float) -> dict[str, Any]:
        """Find objects in a photo: their names, scores and boxes (xyxy in the photo's pixels), best first."""
        if not photo:
            raise gr.Error(say("en", "error.no_photo"), print_exception=False)
        try:
            return engine.detect(photo, float(threshold)).to_dict()
        except (PhotoError, WeightsError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    with gr.Blocks(title="Lite DETR, live", analytics_enabled=False, fill_width=True, delete_cache=(1800, 3600)) as page:
        viewer = stage([open_run, look], examples=EXAMPLE_NAMES, views=list(VIEWS), models=offered())
        # The page fills these two from JavaScript, so that Gradio itself checks where an uploaded file lies.
        upload = gr.File(visible=False, type="filepath")
        request = gr.JSON(visible=False)
        viewer.analyse(
            analyse,
            inputs=[upload, request],
            outputs=[viewer],
            js="() => window.liteDetr.order()",
            trigger_mode="multiple",
            **_ONE_AT_A_TIME,
            **_PRIVATE,
        )
        photo = gr.File(visible=False, type="filepath", label="photo")
        threshold = gr.Number(0.3, visible=False, label="threshold", minimum=0, maximum=1)
        found = gr.JSON(visible=False, label="detections")
        gr.Button(visible=False).click(detect, inputs=[photo, threshold], outputs=[found], api_name="detect", **_ONE_AT_A_TIME)
    return page.queue(max_size=32)


def launch_options(engine: Engine) -> dict[str, Any]:
    """What the server needs besides the page."""
    return {
        "head": HEAD,
        "theme": gr.themes.Base(font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "app_kwargs": {"routes": routes(engine.store)},
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "ssr_mode": False,
        "max_file_size": MAX_FILE,
    }


def _lang(request: dict[str, Any]) -> str:
    return ViewState.from_query({"lang": request.get("lang")}).lang


def _follow(engine: Engine, file: str | None, example: str, lang: str, model: str = "") -> Iterator[dict[str, Any]]:
    """Run in a thread and tell how it goes on.

    Yields ``{"download": [bytes done, bytes in all]}``, ``{"stage": name}``, and ``{"run": id}`` or ``{"error": sentence}`` at
    the end; ``{"refused": sentence}`` where a model cannot be had, and the page's own goes on in its place.
    """
    news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    refused: dict[str, Any] = {}  # goes with all later news, because the page sees only the newest of what comes fast

    def run(source: str) -> None:
        told = (lambda name: news.put({"stage": name}), lambda done, total: news.put({"download": [done, total]}))
        if file:
            made = engine.run(file, Path(file).name, told[0], model=source, download=told[1])
        elif example:
            made = engine.example(example, told[0], source, told[1])
        else:
            raise PhotoError(say(lang, "error.no_photo"))
        news.put({"run": made.id})

    def work() -> None:
        try:
            try:
                run(model)
            except WeightsError as error:
                if not model:
                    raise
                refused["refused"] = str(error)
                run("")
        except (PhotoError, WeightsError) as error:
            news.put({"error": str(error)})
        except Exception:
            log.exception("A run failed")
            news.put({"error": say(lang, "error.inside")})

    threading.Thread(target=work, daemon=True).start()
    while True:
        item = news.get()
        yield item | refused
        if "run" in item or "error" in item:
            return
