"""What the small figures in the inspector have in common."""

from __future__ import annotations

from typing import Any

from app.theme import FONT, NEUTRAL
from app.views.canvas import Drawing

LIT = "rgba(127,143,166,.18)"
"""The band behind the stage that is shown."""
GRID = "rgba(127,143,166,.25)"


def small_chart(traces: list[dict[str, Any]], height: int, **layout: Any) -> Drawing:
    """Traces on a clear ground; axes stay as they are under a finger."""
    still = {"showgrid": False, "zeroline": False, "fixedrange": True}
    for axis in [key for key in layout if key.startswith(("xaxis", "yaxis"))]:
        layout[axis] = still | layout[axis]
    return {
        "data": traces,
        "layout": {
            "template": "none",
            "height": height,
            "margin": {"l": 44, "r": 8, "t": 28, "b": 28},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": FONT, "size": 12, "color": NEUTRAL},
            "hovermode": "closest",
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}},
            **layout,
        },
    }


def band(place: int) -> dict[str, Any]:
    """A shape behind one place of the x axis, over the whole height."""
    rectangle = {"type": "rect", "xref": "x", "yref": "paper", "x0": place - 0.5, "x1": place + 0.5, "y0": 0, "y1": 1}
    return {**rectangle, "fillcolor": LIT, "line": {"width": 0}, "layer": "below"}


def line_at(value: float, axis: str = "y") -> dict[str, Any]:
    """A dotted line across at a value."""
    line = {"color": NEUTRAL, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "paper", "yref": axis, "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}


def name_at(text: str, value: float, axis: str = "y") -> dict[str, Any]:
    """What the line of `line_at` is, at its right end."""
    place = {"xref": "paper", "yref": axis, "x": 1, "y": value, "xanchor": "right", "yanchor": "bottom"}
    return {**place, "text": text, "showarrow": False, "font": {"size": 10}}
