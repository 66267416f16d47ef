"""What several views draw over a photo: sampling points, the query, cells as a heat map, names on boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from app.drawing.canvas import outline
from app.i18n import say
from app.run.choice import QueryChoice
from app.theme import FONT, HALO, RIM, WHITE, ink_on, scale_colour, scale_symbol

SMALLEST, LARGEST = 6.0, 26.0
"""Diameter in screen pixels of a point without weight and of the heaviest; area grows with weight."""

SHOWN = 640
"""Screen pixels of a photo's width, about."""

BOXES = 500
"""Most that a figure draws of detections: more take the browser seconds, and nobody can tell them apart."""


def cut(shown: Sequence[int], lang: str) -> tuple[Sequence[int], list[str]]:
    """Of some detections, best first, those that are drawn; and where there are more, a sentence that says so."""
    if len(shown) <= BOXES:
        return shown, []
    return shown[:BOXES], [say(lang, "cut", most=BOXES, count=len(shown))]


def diameters(relative: np.ndarray, smallest: float = SMALLEST, largest: float = LARGEST) -> np.ndarray:
    """float32 diameters of weights in [0, 1]."""
    return (smallest + (largest - smallest) * np.sqrt(relative)).astype(np.float32)


def sampling_points(scale: str, x: np.ndarray, y: np.ndarray, marker: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Points of a scale, in its colour and mark, at places in the photo's pixels.

    Args:
        marker: more of Plotly's marker: size, opacity, line.
        more: of the trace.
    """
    marker = {"symbol": scale_symbol(scale), "color": scale_colour(scale), "line": {"width": 1, "color": RIM}} | marker
    place = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    return {"type": "scatter", "mode": "markers", "name": scale, "meta": scale, **place, "marker": marker, **more}


def hoverlabel(colour: str) -> dict[str, Any]:
    """What a mark says under the pointer, on its own colour."""
    return {"bgcolor": colour, "bordercolor": colour, "font": {"color": ink_on(colour)}}


def query_box(chosen: QueryChoice) -> list[dict[str, Any]]:
    """The token's cell or the object's box."""
    common = {"type": "scatter", "mode": "lines", **outline(chosen.box), "hoverinfo": "skip", "name": "query"}
    dash = "dot" if chosen.kind == "token" else "dash"
    return [
        {**common, "line": {"color": HALO, "width": 4}},
        {**common, "line": {"color": WHITE, "width": 2, "dash": dash}},
    ]


def cells(values: np.ndarray, size: tuple[float, float], **more: Any) -> dict[str, Any]:
    """Values (h, w) as cells, the first in the photo's corner.

    Args:
        size: width and height of a cell in the photo's pixels.
        more: of the trace: colours, words.
    """
    (width, height), grid = size, {"type": "heatmap", "z": values, "zsmooth": False}
    return {**grid, "x0": width / 2, "dx": width, "y0": height / 2, "dy": height, **more}


BAR = 48
"""Pixels of a figure's lower margin for `bar_below`."""


def bar_below(title: str) -> dict[str, Any]:
    """Plotly's bar of colours, under the figure, where it takes nothing from a phone's width."""
    place = {"x": 0.5, "xanchor": "center", "y": 0, "yanchor": "top", "len": 0.6, "thickness": 9}
    title = {"text": title, "side": "top", "font": {"size": 12}}
    return {"orientation": "h", "title": title, "outlinewidth": 0, "nticks": 7, **place}


def tag(text: str, colour: str, size: int = 11, weight: int = 600, **place: Any) -> dict[str, Any]:
    """A name on its colour; `place` is Plotly's: x, y, anchors."""
    font = {"color": ink_on(colour), "size": size, "family": FONT, "weight": weight}
    return {**place, "text": text, "showarrow": False, "font": font, "bgcolor": colour, "borderpad": 1, "captureevents": False}


def corner(x: float, right: float, y: float, size: tuple[int, int], edge: float) -> dict[str, Any]:
    """Where a box's name goes so that it stays on the photo: its upper left corner, or the right one where there is no room to
    the right; above it, or below it within `edge` pixels of the photo's upper border."""
    leftward = x > 0.86 * size[1]
    anchors = {"xanchor": "right" if leftward else "left", "yanchor": "bottom" if y > edge else "top"}
    return {"x": right if leftward else x, "y": y, **anchors}


def apart(tags: Iterable[Iterable[dict[str, Any]]], pixel: float, most: int) -> list[dict[str, Any]]:
    """At most so many tags that do not cover each other: the first come first, the others give way.

    Args:
        tags: of each the places where it may stand, the best first.
        pixel: of the screen, in the photo's pixels.
    """
    kept: list[dict[str, Any]] = []
    taken = np.zeros((0, 4))
    for places in tags:
        if len(kept) == most:
            break
        for each in places:
            box = _covered(each, pixel)
            if not ((taken[:, :2] < box[2:]) & (box[:2] < taken[:, 2:])).all(axis=1).any():
                kept.append(each)
                taken = np.vstack((taken, box))
                break
    return kept


def _covered(each: dict[str, Any], pixel: float) -> np.ndarray:
    """About the rectangle xyxy that a tag covers, in the photo's pixels."""
    width, height = 0.62 * each["font"]["size"] * len(each["text"]) * pixel, 1.5 * each["font"]["size"] * pixel
    left = each["x"] - width * (each["xanchor"] == "right")
    top = each["y"] - height * (each["yanchor"] == "bottom")
    return np.array([left, top, left + width, top + height])
