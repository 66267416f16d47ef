"""The page's figures without the page: for papers, slides and handouts.

    python -m app.figure photo.jpg --view points --state "q=3&step=B1 all" --out figure.html

The state is what stands in the page's link. html and json need nothing more; svg and png need a Chromium or Chrome on this
machine, because plotly.js draws in a browser.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import orjson
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from app.drawing.canvas import Drawing
from app.engine.engine import EXAMPLE_NAMES, EXAMPLES, Engine
from app.i18n import say
from app.run.model_list import MODEL
from app.run.run import Run
from app.run.state import ViewState
from app.theme import DARK, LIGHT, WHITE, clear
from app.views import VIEWS, view_of
from litedetr import image as photos
from litedetr.weights import WeightsError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class FigureError(ValueError):
    """It cannot be drawn or written; the message says why."""


def redraw(photo: photos.Photo, state: str | ViewState = "", model: str = "", engine: Engine | None = None) -> go.Figure:
    """Run the model on a photo and draw what the page draws in a state, with the photo inside the figure.

    Args:
        photo: a path, encoded bytes, a PIL image or an RGB array; or the name of an example picture.
        state: as in the page's link: "view=points&q=3&step=B1+all".
        model: a model's id on the Hub, or a weights folder; "" for the page's own.
        engine: one that has its models in memory already.

    Raises:
        FigureError: there is no such view.
        litedetr.image.PhotoError: the picture is broken, empty or too large.
        litedetr.weights.WeightsError: the model cannot be loaded.
    """
    run, state = look(photo, state, model, engine)
    return with_photo(view_of(state.view, run).figure(run, state), run)


def look(photo: photos.Photo, state: str | ViewState, model: str = "", engine: Engine | None = None) -> tuple[Run, ViewState]:
    """The run of a photo, with all that the state's view needs computed, and the state. Arguments and errors as in `redraw`."""
    state = state if isinstance(state, ViewState) else ViewState.from_query(state)
    if state.view not in VIEWS:
        raise FigureError(f"expected one of the views {', '.join(VIEWS)}, got {state.view!r}: choose one of them.")
    if model and Path(model).is_dir():  # a link never names one, and the page loads none for a visitor
        engine, model = Engine(model), ""
    engine = Engine(MODEL) if engine is None else engine
    if isinstance(photo, str) and photo in EXAMPLE_NAMES:
        photo = EXAMPLES / f"{photo}.jpg"
    name = Path(photo).name if isinstance(photo, str | Path) else "photo"
    run = engine.run(photo, name, model=model)
    engine.compute(run, state, lambda event: None)
    return run, state


def with_photo(figure: go.Figure, run: Run) -> go.Figure:
    """The figure with the photo itself where the page has its address."""
    for picture in figure.layout.images:
        if picture.source == run.picture_url:
            picture.source = _data_uri(run)
    return figure


def standalone(run: Run, state: ViewState) -> str:
    """One HTML page with the view's figure, its charts and its words. Photo and plotly.js are inside: it works offline."""
    view = view_of(state.view, run)
    state = state.with_(view=view.name)
    summary = view.summary(run, state)
    charts = view.charts(run, state)
    drawings = [view.drawing(run, state), *charts]
    heights = [_height(drawings[0], run), *(f"{drawing['layout'].get('height', 220)}px" for drawing in charts)]
    title = f"{say(state.lang, f'view.{state.view}')} · {run.name}"
    query = state.with_(example="").to_url() if not run.example else state.to_url()
    return _PAGE.format(
        lang=state.lang,
        title=escape(title),
        style=_STYLE,
        heading=escape(title),
        model=escape(f"Lite DETR, live · {run.source or run.model}"),
        first=f'<div class="figure" style="{heights[0]}"></div>',
        caption=_paragraphs([summary.get("caption")], "caption")
        + _paragraphs([summary.get("answer", {}).get("text"), *summary.get("notes", ()), *summary.get("about", ())], "note"),
        facts="".join(f"<dt>{escape(str(label))}</dt><dd>{escape(str(text))}</dd>" for label, text in summary.get("facts", ())),
        others="".join(f'<div class="figure" style="height:{height}"></div>' for height in heights[1:]),
        table=_table(summary.get("table")),
        state=escape(query),
        plotly=get_plotlyjs(),
        drawings=_json(drawings).replace(_json(run.picture_url), _json(_data_uri(run))).replace("</", "<\\/"),
        inks=_json([LIGHT["ink"], DARK["ink"]]),
    )


def write(path: Path, run: Run, state: ViewState, width: int = 1200) -> None:
    """Write a state's figure as .html, .json, .svg or .png.

    Raises:
        FigureError: the file's kind is unknown, or no browser is there to draw a picture.
    """
    kind = path.suffix.lower()
    if kind == ".html":
        path.write_text(standalone(run, state), encoding="utf-8")
    elif kind == ".json":
        path.write_text(with_photo(view_of(state.view, run).figure(run, state), run).to_json(), encoding="utf-8")
    elif kind in (".svg", ".png"):
        path.write_bytes(_picture(with_photo(view_of(state.view, run).figure(run, state), run), run, kind[1:], width))
    else:
        raise FigureError(f"expected a file ending in .html, .json, .svg or .png, got {path.name!r}: choose one of these.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.figure", description="Draw one of the page's views into a file.")
    parser.add_argument("photo", help=f"a picture file, or an example: {', '.join(EXAMPLE_NAMES)}")
    parser.add_argument("--view", choices=VIEWS, help="what is drawn (default: the state's, or the detections)")
    parser.add_argument("--state", default="", help='what is selected, as in the page\'s link: "q=3&step=B1 all"')
    parser.add_argument("--model", default="", help="a model's id on the Hub, or a weights folder (default: the page's own)")
    parser.add_argument("--out", type=Path, required=True, help="figure.html, .json, .svg or .png")
    parser.add_argument("--width", type=int, default=1200, help="of an svg or png, in pixels")
    given = parser.parse_args(arguments)
    state = ViewState.from_query(given.state)
    state = state.with_(view=given.view or state.view)
    try:
        write(given.out, *look(given.photo, state, given.model or state.model), given.width)
    except (FigureError, photos.PhotoError, WeightsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _data_uri(run: Run) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(run.picture).decode()}"


def _json(value: Any) -> str:
    return orjson.dumps(value, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _tall(drawing: Drawing, run: Run) -> float | None:
    """Height over width that a figure of photos wants; None where it has none."""
    meta = drawing["layout"].get("meta") or {}
    return meta.get("tall", run.size[0] / run.size[1]) if meta.get("panels", True) else None


def _height(drawing: Drawing, run: Run) -> str:
    tall = _tall(drawing, run)
    return f"aspect-ratio: 1 / {tall:.4f}" if tall is not None else f"height: {drawing['layout'].get('height', 520)}px"


def _paragraphs(texts: Sequence[str | None], kind: str) -> str:
    return "".join(f'<p class="{kind}">{escape(text)}</p>' for text in texts if text)


def _answer(summary: dict[str, Any]) -> str | None:
    return f"{summary['answer']['title']}: {summary['answer']['text']}" if "answer" in summary else None


def _table(table: dict[str, Any] | None) -> str:
    if not table or not table["rows"]:
        return ""
    head = "".join(f"<th>{escape(str(text))}</th>" for text in table["head"])
    rows = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row["cells"]) for row in table["rows"])
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _picture(figure: go.Figure, run: Run, kind: str, width: int) -> bytes:
    """The figure as plotly.js draws it in a headless browser."""
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        raise FigureError(f"expected a Chromium or Chrome to draw an {kind}, found none: install one, or write .html.")
    drawing = figure.to_plotly_json()
    tall = _tall(drawing, run)
    height = round(width * tall) if tall is not None else drawing["layout"].get("height", 520)
    figure.update_layout(paper_bgcolor=WHITE, font_color=LIGHT["ink"])
    content = figure.to_json().replace("</", "<\\/")
    size = f"{{format: '{kind}', width: {width}, height: {height}}}"
    script = f"Plotly.toImage({content}, {size}).then((url) => {{ document.body.textContent = 'figure ' + url; }});"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        html = f'<!doctype html><meta charset="utf-8"><body><script>{get_plotlyjs()}</script><script>{script}</script>'
        page.write_text(html, encoding="utf-8")
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command = [browser, "--headless", "--disable-gpu", *root, f"--user-data-dir={folder}/profile"]
        command += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    _, found, rest = done.stdout.partition("<body>figure ")
    if not found:
        raise FigureError(f"expected {Path(browser).name} to draw the figure, got nothing from it: write .html and print that.")
    url = unescape(rest.split("<", 1)[0]).strip()
    head, _, body = url.partition(",")
    if "base64" in head:
        return base64.b64decode(body)
    return unquote(body).encode()


_STYLE = f"""
:root {{ color-scheme: light dark; }}
body {{ max-width: 1100px; margin: 24px auto; padding: 0 16px; background: {WHITE}; color: {LIGHT["ink"]};
  font: 15px/1.5 Inter, ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Noto Sans KR", "Noto Sans CJK KR", sans-serif; }}
h1 {{ margin: 0 0 4px; font-size: 20px; }}
.figure {{ width: 100%; margin: 12px 0; }}
.note {{ padding: 7px 10px; border-left: 3px solid {LIGHT["warn-line"]}; background: {clear(LIGHT["warn-line"], 0.12)}; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; }}
dt, .small {{ opacity: .75; font-size: 13px; }}
dd {{ margin: 0; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 3px 12px 3px 0; text-align: left; font-size: 13px; }}
.small {{ overflow-wrap: anywhere; }}
@media (prefers-color-scheme: dark) {{ body {{ background: {DARK["bg"]}; color: {DARK["ink"]}; }} }}
"""

_PAGE = """<!doctype html>
<html lang="{lang}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{heading}</h1><p class="small">{model}</p>
{first}{caption}<dl>{facts}</dl>{others}{table}
<p class="small">{state}</p>
<script>{plotly}</script>
<script>
const drawings = {drawings};
const [light, dark] = {inks};
const scheme = matchMedia('(prefers-color-scheme: dark)');
const boxes = document.querySelectorAll('.figure');
const draw = () => drawings.forEach((drawing, index) => {{
  const {{ data, layout }} = structuredClone(drawing);
  const box = boxes[index];
  Object.assign(layout, {{ font: {{ ...layout.font, color: scheme.matches ? dark : light }}, width: box.clientWidth }});
  if (index === 0) layout.height = box.clientHeight;
  Plotly.react(box, data, layout, {{ displayModeBar: false, scrollZoom: true }});
}});
draw();
scheme.addEventListener('change', draw);
addEventListener('resize', draw);
</script></body></html>
"""

if __name__ == "__main__":
    sys.exit(main())
