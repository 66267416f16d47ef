"""Detections: every box at or above the threshold, one colour per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from app.drawing.canvas import Drawing, canvas, outline
from app.drawing.marks import SHOWN, apart, corner, cut, hoverlabel, tag
from app.i18n import class_name, say
from app.run.choice import detection_of, move_object
from app.run.run import Run
from app.run.state import ViewState
from app.theme import class_colour, clear
from app.views.view import View

LABELS = 24
"""More labels than this would hide the photo; the boxes without one say their class on hover."""


def drawing(run: Run, state: ViewState) -> Drawing:
    """Boxes over the photo; large ones first, so that the small ones are on top and can be pointed at."""
    found = run.detections
    shown, _ = cut(run.shown(state.threshold, state.classes), state.lang)
    areas = np.prod(found.boxes[shown, 2:] - found.boxes[shown, :2], axis=1)
    chosen = detection_of(run, state.query)
    traces = [_box(run, state, int(index), int(index) == chosen) for index in shown[np.argsort(-areas, kind="stable")]]
    labels = apart((_labels(run, state, int(index)) for index in shown), run.size[1] / SHOWN, LABELS)
    return canvas(run, traces, annotations=labels[::-1])


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """How many are shown, and how many of each class there are, the class filter aside; best first."""
    found, everything = run.detections, run.shown(state.threshold)
    counts = Counter(int(label) for label in found.labels[everything])  # in the order in which they come
    # A class that is chosen stays in sight where the threshold leaves none of it.
    counts.update({label: 0 for label in state.classes if label < len(found.class_names)})
    shown = run.shown(state.threshold, state.classes)
    _, cuts = cut(shown, state.lang)
    mouse, touch = (" ".join([*cuts, say(state.lang, key)]) for key in ("hint.detections", "hint.touch"))
    return {
        "threshold": run.threshold(state.threshold),
        "shown": len(shown),
        "classes": [
            {
                "label": label,
                "name": class_name(state.lang, found.class_names[label]),
                "count": count,
                "colour": class_colour(label),
            }
            for label, count in counts.items()
        ],
        "chosen": detection_of(run, state.query),
        "step": "boxes",
        "caption": mouse,
        "line": {"mouse": mouse, "touch": touch},
    }


def _box(run: Run, state: ViewState, index: int, chosen: bool) -> dict[str, Any]:
    found = run.detections
    colour = class_colour(int(found.labels[index]))
    text = f"<b>{escape(class_name(state.lang, found.names[index]))}</b>  {found.scores[index]:.2f}"
    return {
        "type": "scatter",
        **outline(found.boxes[index]),
        "mode": "lines",
        "line": {"color": colour, "width": 4 if chosen else 2.5},
        "fill": "toself",
        "fillcolor": clear(colour, 0.22 if chosen else 0.06),
        "hoveron": "fills",
        "hoverinfo": "text",
        "text": text,
        "name": text,
        "hoverlabel": hoverlabel(colour),
        "meta": index,
    }


def _labels(run: Run, state: ViewState, index: int) -> Iterator[dict[str, Any]]:
    """A box's label where it may stand: at its best corner, or else at the others, the lower ones inside."""
    found = run.detections
    colour = class_colour(int(found.labels[index]))
    x, y, right, bottom = (float(value) for value in found.boxes[index])
    best = corner(x, right, y, run.size, 0.045 * max(run.size))
    upper = {"y": y, "yanchor": best["yanchor"]}
    left, other = {"x": x, "xanchor": "left"}, {"x": right, "xanchor": "right"}
    lower = {"y": bottom, "yanchor": "bottom"}
    text = f"{escape(class_name(state.lang, found.names[index]))} {found.scores[index]:.2f}"
    for place in (best, upper | other, upper | left, lower | left, lower | other):
        yield tag(text, colour, 12, **place) | {"borderpad": 2, "xshift": 1 if place["xanchor"] == "right" else -1}


VIEW = View("detections", drawing, summary, move=move_object, cards=("classes",), rail=False, leads="points")
