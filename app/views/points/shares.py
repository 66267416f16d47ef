"""Attention per scale as bars: the mean over heads, then every head. Each bar is 1 long."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.drawing.canvas import Drawing, ground
from app.drawing.marks import hoverlabel
from app.i18n import say
from app.run.state import ViewState
from app.theme import ink_on, scale_colour

ROW = 23
"""Pixels per bar."""


def shares_chart(numbers: dict[str, Any], state: ViewState) -> Drawing:
    """Stacked bars, S1 first; hidden scales are pale, and heads that are not shown too. A click on a bar chooses its head.

    Args:
        numbers: the view's summary.
    """
    rows = np.array([numbers["mean"], *numbers["shares"]])  # (M + 1, L)
    mean, head = say(state.lang, "mean"), say(state.lang, "head")
    names = [f"{head} {index + 1}" for index in range(numbers["heads"])]
    labels = [mean, *names]
    lit = np.array([True, *(state.head in (None, index + 1) for index in range(numbers["heads"]))])
    traces = []
    for place, scale in enumerate(numbers["scales"]):
        colour = scale_colour(scale)
        opacity = np.where(lit, 1.0, 0.28) * (0.25 if scale in state.hidden else 1.0)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": scale,
                "y": labels,
                "x": rows[:, place],
                "customdata": [{"set": {"head": ""}}, *({"set": {"head": str(index + 1)}} for index in range(numbers["heads"]))],
                "marker": {"color": colour, "opacity": opacity, "line": {"width": 0}},
                "text": [f"{100 * share:.0f}" if share >= 0.095 else "" for share in rows[:, place]],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "textfont": {"color": ink_on(colour), "size": 11},
                "hovertemplate": f"<b>{scale}</b> · %{{y}}<br>%{{x:.4f}}<extra></extra>",
                "hoverlabel": hoverlabel(colour),
            }
        )
    sums = [float(np.mean(numbers["sums"])), *numbers["sums"]]
    return {"data": traces, "layout": _layout(labels, sums)}


def _layout(labels: list[str], sums: list[float]) -> dict[str, Any]:
    place = {"xref": "paper", "x": 1.02, "xanchor": "left", "showarrow": False, "font": {"size": 11}}
    notes = [{**place, "y": label, "text": f"Σ {total:.3f}"} for label, total in zip(labels, sums, strict=True)]
    return {
        **ground(12),
        "barmode": "stack",
        "bargap": 0.22,
        "height": ROW * len(labels) + 6,
        "margin": {"l": 58, "r": 58, "t": 2, "b": 2},
        "showlegend": False,
        "xaxis": {"visible": False, "range": [0, 1], "fixedrange": True},
        "yaxis": {"autorange": "reversed", "fixedrange": True, "ticks": "", "showgrid": False, "zeroline": False},
        "annotations": notes,
        "uirevision": "shares",
        "meta": {"card": "query", "panels": []},
    }
