"""Several photos beside each other, each with its own traces and a title; axes of all count in the photo's pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from app.drawing.canvas import Drawing, canvas
from app.run.run import Run
from app.theme import FONT, GROUND, WHITE

GAP = 0.02
"""Between panels, relative to the figure."""
WIDE = 1.15
"""Photos that are wider than this (width over height) are put one above the other, where there are two."""
HEAD, HEAD_OF_SMALL = 0.11, 0.17
"""Room above each photo for its title, relative to the photo's height; more where photos beside each other are small."""


@dataclass(frozen=True)
class Panel:
    """One photo of a figure: its title and what is drawn over it; annotations count in the photo's pixels."""

    title: str
    traces: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


def panels(run: Run, contents: list[Panel], veil: float = 0.0, **layout: Any) -> Drawing:
    """One to four (or more) photos in a grid.

    ``layout["meta"]`` names each panel's axes, and tells the height over width (`tall`) of a figure that its photos fill.

    Args:
        veil: how much a dark veil takes from the photos, 0 to 1.
        layout: more of Plotly's layout.
    """
    height, width = run.size
    columns = _columns(len(contents), width / height)
    rows = -(-len(contents) // columns)
    head = (HEAD if columns == 1 else HEAD_OF_SMALL) * height
    drawing = canvas(run, [], veil=veil)
    base = drawing["layout"]
    picture, veil_shape = base["images"][0], base["shapes"][0]
    xaxis, yaxis = base.pop("xaxis"), base.pop("yaxis")
    base.update(images=[], shapes=[], annotations=[], meta={"panels": []})
    for index, panel in enumerate(contents):
        number = "" if index == 0 else str(index + 1)
        x, y = f"x{number}", f"y{number}"
        row, column = divmod(index, columns)
        base[f"xaxis{number}"] = {**xaxis, "domain": _domain(column, columns), "anchor": y}
        base[f"yaxis{number}"] = {
            **yaxis,
            "range": [yaxis["range"][0], -head],
            "domain": _domain(rows - 1 - row, rows),
            "anchor": x,
            "scaleanchor": x,
        }
        base["images"].append({**picture, "xref": x, "yref": y})
        base["shapes"].append({**veil_shape, "xref": x, "yref": y})
        base["annotations"].append(_title(panel.title, x, y, 12 if len(contents) <= 2 else 11))
        base["annotations"] += [{**note, "xref": x, "yref": y} for note in panel.annotations]
        base["meta"]["panels"].append({"x": x, "y": y})
        drawing["data"] += [{**trace, "xaxis": x, "yaxis": y} for trace in panel.traces]
    (left, right), (bottom, top) = base["xaxis"]["range"], base["yaxis"]["range"]
    base["meta"]["tall"] = rows / columns * (bottom - top) / (right - left)
    base["annotations"] += layout.pop("annotations", [])
    base["shapes"] += layout.pop("shapes", [])
    base.update(layout)
    return drawing


def _columns(count: int, aspect: float) -> int:
    if count <= 2:
        return 1 if aspect > WIDE else count
    return 2 if count <= 4 else 3


def _domain(place: int, places: int) -> list[float]:
    size = (1 - GAP * (places - 1)) / places
    start = place * (size + GAP)
    return [start, min(start + size, 1.0)]


def _title(text: str, x: str, y: str, size: int) -> dict[str, Any]:
    place = {"xref": x, "yref": y, "x": 0, "y": 0, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    font = {"size": size, "family": FONT, "weight": 600, "color": WHITE}
    words = {"text": escape(text), "font": font, "bgcolor": GROUND, "borderpad": 2}
    return {**place, **words, "xshift": -1, "yshift": 1, "captureevents": False}
