"""The `gr.HTML` that holds the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import gradio as gr

from app.i18n import classes, texts
from app.lessons import glossary, lesson
from app.run.state import KEYS, KEYS_OF_OWN_PHOTO, KEYS_VISITED, LANGUAGES
from app.server.routes import PLOTLY, SOURCE
from app.theme import SCALES, css
from app.views.view import View

FOLDER = Path(__file__).resolve().parent

HEAD = f"""
<meta name="color-scheme" content="light dark">
<style>{css()}</style>
<link rel="stylesheet" href="lite/stage/stage.css">
<link rel="stylesheet" href="lite/stage/views.css">
<link rel="modulepreload" href="lite/stage/js/main.js">
<link rel="preload" href="{PLOTLY}" as="script">
"""
"""Relative links, so that the page also works below a path."""


def stage(
    server_functions: Sequence[Callable],
    examples: Sequence[str],
    views: Iterable[View],
    models: Sequence[dict[str, str]],
    hub: bool,
) -> gr.HTML:
    """The component. Its JavaScript calls `server_functions` and triggers "analyse" and "work"."""
    return gr.HTML(
        value="",
        html_template=(FOLDER / "stage.html").read_text(encoding="utf-8"),
        js_on_load=_START,
        server_functions=list(server_functions),
        apply_default_css=False,
        container=False,
        padding=False,
        elem_id="lite-detr",
        page={
            "plotly": PLOTLY,
            "source": SOURCE,
            "examples": list(examples),
            "views": [view.facts() for view in views],
            "models": list(models),
            "hub": hub,
            "glossary": {lang: glossary(lang) for lang in LANGUAGES},
            "lesson": {lang: lesson(lang) for lang in LANGUAGES},
            "texts": {lang: texts(lang) for lang in LANGUAGES},
            "classes": {lang: classes(lang) for lang in LANGUAGES},
            "scales": {f"S{number}": vars(each) for number, each in enumerate(SCALES, start=1)},
            "link": {"keys": KEYS, "own": KEYS_OF_OWN_PHOTO, "visited": KEYS_VISITED},
        },
    )


def events() -> gr.HTML:
    """Where the events of jobs arrive, in the props ``run_event`` and ``work_event``. It has nothing to show: Gradio makes a
    component anew for each event, and the stage carries every text of the page."""
    return gr.HTML(
        value="",
        js_on_load=_EVENTS,
        apply_default_css=False,
        container=False,
        padding=False,
        elem_id="lite-events",
        run_event={},
        work_event={},
    )


# "analyse" and "work" stand here in quotes because Gradio looks for the names of custom events in this text.
_START = """
const start = (name) => trigger(name);
import(new URL('lite/stage/js/main.js', document.baseURI).href).then(
  ({ mount }) => mount(element, { analyse: () => start('analyse'), work: () => start('work'), props, server, upload })
);
"""
_EVENTS = """
const copy = (event) => JSON.parse(JSON.stringify(event ?? {}));
watch('run_event', () => window.liteDetr.onEvent(copy(props.run_event)));
watch('work_event', () => window.liteDetr.work.onEvent(copy(props.work_event)));
"""
