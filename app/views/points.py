"""Where one query looks: its sampling points on every scale, as large and as opaque as their attention weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.run import Run
from app.selection import Selection, select
from app.state import ViewState
from app.text import say
from app.theme import class_colour, ink_on, scale_colour, scale_symbol
from app.views.canvas import Drawing, canvas, outline

VEIL = 0.42
SMALLEST, LARGEST = 6.0, 26.0
"""Diameter in screen pixels of a point without weight and of the query's heaviest point; area grows with weight."""


def figure(run: Run, state: ViewState) -> go.Figure:
    """`drawing` as a figure."""
    return go.Figure(drawing(run, state))


def drawing(run: Run, state: ViewState) -> Drawing:
    """Points where they are, also outside the photo; one colour and mark per scale, the same measure of size for all."""
    chosen = select(run, state)
    traces = [_outlines(run, state), *_query_box(chosen)]
    traces += [_points(run, state, chosen, scale) for scale in chosen.step.scales if scale not in state.hidden]
    traces += _cross(chosen, state)
    return canvas(run, traces, veil=VEIL)


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """The query in numbers: attention per scale and head, what lies outside, and the output rebuilt from the points."""
    chosen = select(run, state)
    weights = chosen.weights.astype(np.float64)  # (M, L, P)
    shares = weights.sum(axis=2)  # (M, L), finest scale first
    height, width = run.size
    x, y = np.moveaxis(run.to_photo(chosen.locations), -1, 0)
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    heads, levels, points = weights.shape
    order = list(reversed(range(levels)))  # S1 first, as names count
    return {
        "step": chosen.step.name,
        "kind": chosen.kind,
        "query": chosen.query,
        "detection": _detection(run, chosen),
        "scale": chosen.scale,
        "cell": chosen.cell,
        "reference": chosen.reference,
        "scales": [chosen.step.scales[level] for level in order],
        "asking": sorted(chosen.step.query_scales),
        "heads": heads,
        "points": heads * levels * points,
        "shares": shares[:, order].tolist(),
        "mean": shares[:, order].mean(axis=0).tolist(),
        "sums": shares.sum(axis=1).tolist(),
        "outside": {"points": int(outside.sum()), "weight": float(weights[outside].sum() / heads)},
        "heaviest": float(weights.max()),
        "error": chosen.step.rebuild_error([chosen.row]),
        "notes": [say(state.lang, f"note.{key}", **values) for key, values in chosen.notes],
    }


def _detection(run: Run, chosen: Selection) -> dict[str, Any] | None:
    """The best class of the query at the step (an object) or at the end (a token's later object)."""
    if chosen.query is None:
        return None
    layer = run.trace.decoder_steps.index(chosen.step) if chosen.kind == "object" else -1
    logits = run.trace.logits[layer, chosen.query].float()
    label = int(logits.argmax())
    return {"name": run.config.names[label], "score": float(logits[label].sigmoid()), "colour": class_colour(label)}


def _points(run: Run, state: ViewState, chosen: Selection, scale: str) -> dict[str, Any]:
    level = chosen.step.scales.index(scale)
    weights = chosen.weights[:, level]  # (M, P)
    heads, points = np.indices(weights.shape)
    kept = np.ones(len(weights), dtype=bool) if state.head is None else np.arange(len(weights)) == state.head - 1
    if not kept.any():
        kept[:] = True
    weights, heads, points = (values[kept].ravel() for values in (weights, heads, points))
    x, y = np.moveaxis(run.to_photo(chosen.locations[kept, level]).reshape(-1, 2), -1, 0)
    order = np.argsort(-weights, kind="stable")  # heavy ones below, so that light ones stay visible
    relative = weights[order] / max(float(chosen.weights.max()), 1e-12)
    colour = scale_colour(scale)
    details = np.stack((heads[order] + 1, points[order] + 1, weights[order]), axis=1).astype(np.float32)
    words = {key: say(state.lang, key) for key in ("head", "point", "weight")}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": scale,
        "x": x[order].astype(np.float32),
        "y": y[order].astype(np.float32),
        "customdata": details,
        "hovertemplate": (
            f"<b>{scale}</b> · {words['head']} %{{customdata[0]}} · {words['point']} %{{customdata[1]}}<br>"
            f"{words['weight']} %{{customdata[2]:.4f}}<extra></extra>"
        ),
        "hoverlabel": {"bgcolor": colour, "bordercolor": colour, "font": {"color": ink_on(colour)}},
        "marker": {
            "symbol": scale_symbol(scale),
            "color": colour,
            "size": (SMALLEST + (LARGEST - SMALLEST) * np.sqrt(relative)).astype(np.float32),
            "opacity": (0.42 + 0.53 * relative).astype(np.float32),
            "line": {"width": 1, "color": "rgba(6,9,15,.85)"},
        },
        "meta": scale,
        "cliponaxis": False,
    }


def _outlines(run: Run, state: ViewState) -> dict[str, Any]:
    """The detections as thin lines, to see where the query is among them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for index in run.shown(state.threshold):
        path = outline(run.detections.boxes[index])
        x += [*path["x"], None]
        y += [*path["y"], None]
    line = {"color": "rgba(255,255,255,.45)", "width": 1}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip", "name": "detections"}


def _query_box(chosen: Selection) -> list[dict[str, Any]]:
    """The token's cell or the object's box."""
    path = outline(chosen.box)
    common = {"type": "scatter", "mode": "lines", **path, "hoverinfo": "skip", "name": "query"}
    dash = "dot" if chosen.kind == "token" else "dash"
    return [
        {**common, "line": {"color": "rgba(6,9,15,.8)", "width": 4}},
        {**common, "line": {"color": "#ffffff", "width": 2, "dash": dash}},
    ]


def _cross(chosen: Selection, state: ViewState) -> list[dict[str, Any]]:
    x, y = chosen.reference
    common = {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "name": "reference"}
    words = f"<b>{say(state.lang, 'reference')}</b><br>x %{{x:.1f}}, y %{{y:.1f}}<extra></extra>"
    halo = {"symbol": "cross-thin", "size": 24, "line": {"width": 6, "color": "rgba(6,9,15,.85)"}}
    mark = {"symbol": "cross-thin", "size": 22, "line": {"width": 2.5, "color": "#ffffff"}}
    return [{**common, "marker": halo, "hoverinfo": "skip"}, {**common, "marker": mark, "hovertemplate": words}]
