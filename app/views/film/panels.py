"""The film's encoder frames: the tokens of every scale in the photo's place, scale beside scale."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.drawing.canvas import Drawing, outline
from app.drawing.panels import Panel, panels
from app.drawing.pictures import picture, png_url
from app.i18n import say
from app.run.choice import detection_of
from app.run.run import Run
from app.run.state import ViewState
from app.theme import HALO, NEUTRAL, NOTHING, RIM, WHITE, ink_on, scale_colour
from app.views.film.frames import Film, Frame, film_of
from litedetr.positions import level_slices
from litedetr.schedule import scale_name

KEPT = 0.3
"""Opacity of a scale that the step left as it was."""
HEAD = 0.12
"""Room for a panel's title, relative to the photo's longer side."""


def drawing(run: Run, state: ViewState, frame: Frame) -> Drawing:
    """One panel per scale, S1 first, and the photo in a place that is left over."""
    film, shapes = film_of(run), run.trace.spatial_shapes
    levels = list(reversed(range(len(shapes))))
    spare = len(levels) > 2 and len(levels) % (2 if len(levels) <= 4 else 3) > 0
    contents = [Panel(_title(state, len(shapes), level, shapes[level], frame), _chosen(run, state)) for level in levels]
    drawn = panels(run, [*contents, *[Panel(say(state.lang, "photo"), _chosen(run, state))] * spare])
    layout = drawn["layout"]
    slices = level_slices(shapes)
    extent = tuple(float(value) for value in run.to_photo(np.ones(2)))
    heats = []
    for place, level in enumerate(levels):
        scale = scale_name(level, len(shapes))
        updated = scale in frame.updated
        axes = layout["images"][place]["xref"], layout["images"][place]["yref"]
        opacity = 1.0 if updated or frame.step is None else KEPT
        tokens = slices[level]
        if state.film == "change":
            change = film.change[frame.memory, tokens].reshape(shapes[level])
            heats.append(_heat(state, scale, change, extent, axes, opacity))
            layout["images"][place]["opacity"] = 0
        else:
            pixels = film.colours[frame.memory, tokens].reshape(*shapes[level], 3)
            layout["images"][place] = picture(png_url(pixels), extent, axes, opacity)
        layout["shapes"][place] = _frame(scale, updated, run.size, axes)
        layout["annotations"][place] |= _tag(scale_colour(scale), updated or frame.step is None)
    if spare:
        layout["annotations"][-1] |= _tag(NEUTRAL, False)
    if state.film == "change":
        drawn["data"] = [*heats, *drawn["data"]]
        layout["coloraxis"] = _colours(state, film)
        layout["margin"] = {**layout["margin"], "b": 54}
    layout["margin"] = {**layout["margin"], "t": 8}  # titles keep their height where panels are small
    layout["meta"]["tall"] *= 1 + HEAD * max(run.size) / run.size[0]
    layout["meta"]["tall"] += 0.14 * (state.film == "change")  # on a phone, for the colour bar
    for place in range(len(contents) + spare):
        axis = layout[f"yaxis{place + 1 if place else ''}"]
        axis["range"] = [axis["range"][0], -HEAD * max(run.size)]
    return drawn


def _heat(
    state: ViewState,
    scale: str,
    change: np.ndarray,
    extent: tuple[float, float],
    axes: tuple[str, str],
    opacity: float,
) -> dict[str, Any]:
    """The scale's change (h, w) as cells of its stride."""
    height, width = change.shape
    word = say(state.lang, "film.change")
    return {
        "type": "heatmap",
        "name": scale,
        "meta": {"scale": scale},
        "z": np.round(change, 4),
        "x0": extent[0] / width / 2,
        "dx": extent[0] / width,
        "y0": extent[1] / height / 2,
        "dy": extent[1] / height,
        "xaxis": axes[0],
        "yaxis": axes[1],
        "coloraxis": "coloraxis",
        "opacity": opacity,
        "hovertemplate": f"<b>{scale}</b><br>{word}: %{{z:.3f}}<extra></extra>",
    }


def _colours(state: ViewState, film: Film) -> dict[str, Any]:
    """One scale of colours, with its bar, for all panels and the whole film."""
    small = {"size": 11}
    title = {"text": say(state.lang, "film.bar"), "side": "bottom", "font": small}
    bar = {"orientation": "h", "thickness": 10, "len": 0.7, "x": 0.5, "xanchor": "center", "y": -0.005, "yanchor": "top"}
    bar |= {"title": title, "tickfont": small, "outlinewidth": 0, "nticks": 6}
    return {"cmin": 0.0, "cmax": max(film.limit, 1e-6), "colorscale": "Viridis", "colorbar": bar}


def _frame(scale: str, updated: bool, size: tuple[int, int], axes: tuple[str, str]) -> dict[str, Any]:
    """Around a panel: its scale's colour where the step updated it."""
    height, width = size
    line = {"color": scale_colour(scale), "width": 4} if updated else {"color": NEUTRAL, "width": 1, "dash": "dot"}
    return {"type": "rect", "xref": axes[0], "yref": axes[1], "x0": 0, "y0": 0, "x1": width, "y1": height, "line": line}


def _title(state: ViewState, scales: int, level: int, shape: tuple[int, int], frame: Frame) -> str:
    scale = scale_name(level, scales)
    kept = frame.step is not None and scale not in frame.updated
    return f"{scale}  {shape[1]}×{shape[0]}" + (f" · {say(state.lang, 'film.kept')}" if kept else "")


def _tag(colour: str, lit: bool) -> dict[str, Any]:
    """A panel's title above its corner, on its scale's colour where the scale is lit."""
    font = {"size": 11, "color": ink_on(colour)} if lit else {"size": 11}
    fill = {"bgcolor": colour if lit else NOTHING, "font": font}
    return {**fill, "yanchor": "bottom", "borderpad": 2, "xshift": -2, "yshift": 3}


def _chosen(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """The chosen detection's box or the chosen point."""
    common = {"type": "scatter", "hoverinfo": "skip", "name": "chosen"}
    hit = detection_of(run, state.query)
    if hit is not None:
        path = outline(run.detections.boxes[hit])
        lines = ({"color": HALO, "width": 3.5}, {"color": WHITE, "width": 1.5})
        return [{**common, "mode": "lines", **path, "line": line} for line in lines]
    if state.query is not None or state.point is None:
        return []
    height, width = run.size
    place = {**common, "mode": "markers", "x": [state.point[0] * width], "y": [state.point[1] * height]}
    marks = ((16, 5, RIM), (14, 2, WHITE))
    return [{**place, "marker": {"symbol": "cross-thin", "size": s, "line": {"width": w, "color": c}}} for s, w, c in marks]
