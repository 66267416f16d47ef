"""The photo as a Plotly figure to draw on, with a gutter around it for what lies outside."""

from __future__ import annotations

from typing import Any

from app.run.run import Run
from app.run.state import ViewState
from app.theme import FONT, FRAME, NEUTRAL, NOTHING, thin, veiled

GUTTER = 0.045
"""Room around the photo, relative to its longer side."""

Drawing = dict[str, Any]
"""{"data": [...], "layout": {...}} as Plotly understands it."""


def canvas(run: Run, traces: list[dict[str, Any]], veil: float = 0.0, **layout: Any) -> Drawing:
    """The photo with `traces` over it, in the photo's pixels.

    Args:
        veil: how much a dark veil takes from the photo, so that marks stand out; 0 to 1.
        layout: more of Plotly's layout; shapes and annotations are drawn over the photo.
    """
    height, width = run.size
    gutter = GUTTER * max(height, width)
    picture = {
        "source": run.picture_url,
        "xref": "x",
        "yref": "y",
        "x": 0,
        "y": 0,
        "sizex": width,
        "sizey": height,
        "sizing": "stretch",
        "layer": "below",
    }
    frame = {"type": "rect", "x0": 0, "y0": 0, "x1": width, "y1": height, "layer": "between"}
    shapes = [{**frame, "fillcolor": veiled(veil), "line": {"width": 1, "color": FRAME}}]
    axis = {"visible": False, "zeroline": False, "showgrid": False, "fixedrange": False}
    return {
        "data": traces,
        "layout": {
            **ground(),
            "images": [picture],
            "shapes": shapes + layout.pop("shapes", []),
            "xaxis": {**axis, "range": [-gutter, width + gutter]},
            "yaxis": {**axis, "range": [height + gutter, -gutter], "scaleanchor": "x", "scaleratio": 1},
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "showlegend": False,
            "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
            "uirevision": run.id,
            **layout,
        },
    }


def ground(size: int = 13) -> dict[str, Any]:
    """What the layout of every figure has: no background of its own, and the page's font."""
    font = {"family": FONT, "size": size, "color": NEUTRAL}
    return {"template": "none", "paper_bgcolor": NOTHING, "plot_bgcolor": NOTHING, "font": font, "hovermode": "closest"}


def outline(box: tuple[float, float, float, float]) -> dict[str, list[float]]:
    """xyxy -> the closed path around it."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return {"x": [x1, x2, x2, x1, x1], "y": [y1, y1, y2, y2, y1]}


def outlines(run: Run, state: ViewState, opacity: float, width: float) -> dict[str, Any]:
    """The detections that the state shows, as thin white lines in one trace."""
    x: list[float | None] = []
    y: list[float | None] = []
    for index in run.shown(state.threshold, state.classes):
        path = outline(run.detections.boxes[index])
        x += [*path["x"], None]
        y += [*path["y"], None]
    line = {"color": thin(opacity), "width": width}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip", "name": "detections"}
