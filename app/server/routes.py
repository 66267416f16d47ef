"""What the page fetches by plain links: its own scripts, plotly.js, the examples, and a run's files. All under ``lite/``."""

from __future__ import annotations

import gzip
import os
import posixpath
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

from app.engine.engine import EXAMPLES
from app.engine.store import ExpiredRun, RunStore
from app.figure import standalone
from app.run.run import Run
from app.run.state import ViewState
from app.server.exports import coco_json, png, points_csv

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "app" / "stage"
ABOUT = {
    path.name: path for path in (ROOT / "docs" / "api.md", ROOT / "docs" / "privacy.md", ROOT / "LICENSE", ROOT / "README.md")
}
"""What the page's footer leads to, as plain text."""
_SPACE = os.environ.get("SPACE_ID")
SOURCE = f"https://huggingface.co/spaces/{_SPACE}/tree/main" if _SPACE else "lite/about/README.md"
"""Where the page's source is: the Space's files, else where they are described."""
PLOTLY = f"lite/plotly-{plotly.__version__}.min.js"
"""The library's own bundled plotly.js: the page asks nobody else for it."""


STARTED = secrets.token_hex(16)


class Fresh(StaticFiles):
    """Static files that a browser may keep but asks about, so that an update is seen at once."""

    def file_response(self, *args, **kwargs) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def routes(store: RunStore) -> list[BaseRoute]:
    """For the web server that Gradio starts."""

    def of_run(file: str, answer: Callable[[Run, Request], Response]) -> Route:
        """A file of a run that is kept, else a sentence."""

        def serve(request: Request) -> Response:
            try:
                run = store.get(request.path_params["run"])
            except ExpiredRun:
                return PlainTextResponse("This run is no longer kept: send the photo again.", status_code=404)
            return answer(run, request)

        return Route(f"/lite/run/{{run}}/{file}", serve)

    return [
        Route(f"/{PLOTLY}", _plotly),
        of_run("photo.jpg", _picture),
        of_run("detections.json", _result_json),
        of_run("detections.png", _result_png),
        of_run("points.csv", _query_csv),
        of_run("figure.html", _figure_html),
        Route("/lite/alive", _alive),
        Route("/lite/about/{name}", _about),
        _folder("/lite/stage", STAGE),
        _folder("/lite/examples", EXAMPLES),
    ]


def _folder(path: str, directory: Path) -> Route:
    """The files of a folder. A `Mount` would answer 404 where a proxy takes off the prefix that ``root_path`` names."""
    files = Fresh(directory=directory)

    async def serve(request: Request) -> Response:
        return await files.get_response(posixpath.normpath(request.path_params["path"]), request.scope)

    return Route(f"{path}/{{path:path}}", serve)


def _picture(run: Run, request: Request) -> Response:
    return Response(run.picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _result_json(run: Run, request: Request) -> Response:
    state = _state(request)
    return _download(coco_json(run, state.threshold, state.classes), "application/json", f"{_plain(run.name)}.json")


def _result_png(run: Run, request: Request) -> Response:
    state = _state(request)
    return _download(png(run, state.threshold, state.classes), "image/png", f"{_plain(run.name)}.png")


def _query_csv(run: Run, request: Request) -> Response:
    return _download(points_csv(run, _state(request)), "text/csv; charset=utf-8", f"{_plain(run.name)}-points.csv")


def _figure_html(run: Run, request: Request) -> Response:
    state = _state(request).with_(example=run.example)
    return _download(standalone(run, state), "text/html; charset=utf-8", f"{_plain(run.name)}-{state.view}.html")


def _alive(request: Request) -> Response:
    """Which server this is: another text after a restart, by which the page knows that its runs are gone."""
    return PlainTextResponse(STARTED, headers={"Cache-Control": "no-store"})


def _about(request: Request) -> Response:
    file = ABOUT.get(request.path_params["name"])
    if file is None:
        return PlainTextResponse("There is no such text.", status_code=404)
    return PlainTextResponse(file.read_text(encoding="utf-8"), headers={"Cache-Control": "no-cache"})


def _plotly(request: Request) -> Response:
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(_plotly_gzip(), media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})
    return Response(_plotly_file().read_bytes(), media_type="text/javascript", headers=headers)


def _plotly_file() -> Path:
    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


@cache
def _plotly_gzip() -> bytes:
    """4.8 MB become 1.5 MB, once."""
    return gzip.compress(_plotly_file().read_bytes(), compresslevel=6)


def _state(request: Request) -> ViewState:
    return ViewState.from_query(dict(request.query_params))


def _download(content: str | bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _plain(name: str) -> str:
    """A file name without anything that a header or a disk could mistake."""
    stem = "".join(letter for letter in Path(name).stem if letter.isascii() and (letter.isalnum() or letter in "-_ "))
    return f"{stem.strip()[:60] or 'photo'}-lite-detr"
