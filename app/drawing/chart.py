"""The small figures in the inspector: what they have in common, charts with a title, bars per head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.drawing.canvas import Drawing, ground
from app.theme import GRID, LIT, NEUTRAL, ink_on, scale_colour, scale_key

ROW = 23
"""Pixels per row of bars."""
_TOP_LEFT = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "top"}
_LINE = 16
"""Pixels of a title's further line, by which Plotly moves the first one up."""
_LEGEND = {
    "orientation": "h",
    "x": 1,
    "xanchor": "right",
    "yanchor": "bottom",
    "traceorder": "normal",
    "font": {"size": 11},
}
HEADS = 54
"""Pixels for the names of heads."""
TITLE, LEGEND, LEGEND_GAP = 26, 24, 5
"""Pixels above the plot for each, and between legend and plot."""


def small_chart(traces: list[dict[str, Any]], height: int, **layout: Any) -> Drawing:
    """Traces on a clear ground; axes stay as they are under a finger."""
    still = {"showgrid": False, "zeroline": False, "fixedrange": True}
    for axis in [key for key in layout if key.startswith(("xaxis", "yaxis"))]:
        layout[axis] = still | layout[axis]
    return {
        "data": traces,
        "layout": {
            **ground(12),
            "height": height,
            "margin": {"l": 44, "r": 8, "t": 28, "b": 28},
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


def chart(
    traces: list[dict[str, Any]], title: str, room: float, legend: bool = False, scales: Sequence[str] = (), **layout: Any
) -> Drawing:
    """A small chart with a title.

    Args:
        room: pixels for the plot itself, without title, legend and axis.
        legend: of the traces, by Plotly.
        scales: those whose marks are explained below the title instead: Plotly's legend of four has no room on narrow screens.
        layout: more of Plotly's layout; axes are dicts of their own.
    """
    top, bottom = TITLE + LEGEND * (legend or bool(scales)), 24
    text = title + ("<br>" + "   ".join(map(scale_key, scales)) if scales else "")
    above = 1 + LEGEND_GAP / room
    own = {
        "title": {"text": text, "font": {"size": 12}, **_TOP_LEFT, "pad": {"l": 2, "t": 4 + _LINE * bool(scales)}},
        "margin": {"l": 74, "r": 10, "t": top, "b": bottom},
        "showlegend": legend,
        "legend": {**_LEGEND, "y": above},
        "meta": {"panels": []},
    }
    return small_chart(traces, int(room + top + bottom), **own | layout)


def value_axis(**more: Any) -> dict[str, Any]:
    """An axis of numbers with a faint grid."""
    return {"showgrid": True, "gridcolor": GRID, "nticks": 5, **more}


def name_axis(**more: Any) -> dict[str, Any]:
    """An axis of names, the first on top."""
    return {"autorange": "reversed", "ticks": "", **more}


def head_bars(
    values: np.ndarray, scales: Sequence[str], names: list[str], title: str, hover: str, lit: int | None = None, unit: str = ""
) -> Drawing:
    """Stacked bars, one per head, one colour per scale; a click on a bar chooses the head.

    Args:
        values: (M, N) per head and scale, in the order of `scales`.
        names: of the heads.
        hover: Plotly's format of a value.
        lit: the head (from 1) that is chosen, None for all.
        unit: behind the axis' numbers.
    """
    opacity = [1.0 if lit in (None, head + 1) else 0.35 for head in range(len(values))]
    traces = []
    for place, scale in enumerate(scales):
        colour = scale_colour(scale)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": scale,
                "y": names,
                "x": values[:, place].astype(np.float32),
                "marker": {"color": colour, "opacity": opacity, "line": {"width": 0}},
                "customdata": [{"set": {"head": str(head + 1)}} for head in range(len(values))],
                "hovertemplate": f"<b>{scale}</b> · %{{y}}<br>{hover}<extra></extra>",
                "hoverlabel": {"bgcolor": colour, "bordercolor": colour, "font": {"color": ink_on(colour)}},
            }
        )
    axes = {"xaxis": value_axis(ticksuffix=unit), "yaxis": name_axis()}
    drawn = chart(traces, title, ROW * len(names), scales=scales, barmode="stack", bargap=0.25, **axes)
    drawn["layout"]["margin"] |= {"l": HEADS}
    return drawn
