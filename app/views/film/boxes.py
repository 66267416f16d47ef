"""The film's last part: where a decoder layer moved the boxes of the best queries."""

from __future__ import annotations

from html import escape
from typing import Any

from app.drawing.canvas import Drawing, canvas, outline
from app.drawing.marks import corner, tag
from app.i18n import class_name
from app.run.run import Run
from app.run.state import ViewState
from app.theme import RIM, class_colour
from litedetr import AttentionStep

VEIL = 0.35
FOLLOWED = 12
"""So many queries' boxes are followed."""


def followed(run: Run, state: ViewState) -> list[int]:
    """Queries of the shown detections, best first, the chosen one among them; the five best where none is shown."""
    shown = run.detections.queries[run.shown(state.threshold, state.classes)]
    best = list(dict.fromkeys((shown if len(shown) else run.detections.queries[:5]).tolist()))[:FOLLOWED]
    if state.query is not None and state.query < run.trace.logits.shape[1] and state.query not in best:
        best = [*best[: FOLLOWED - 1], state.query]
    return best


def drawing(run: Run, state: ViewState, step: AttentionStep, at_rest: bool = False) -> Drawing:
    """Where the layer moved the followed queries' boxes: from dotted to solid, with the way of their centres.

    Args:
        at_rest: where they are, alone.
    """
    layer = run.trace.decoder_steps.index(step)
    queries = followed(run, state)
    boxes = run.on_photo(run.trace.boxes[: layer + 2, queries])
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    scores = run.trace.logits[layer, queries].float().sigmoid()
    final = run.trace.logits[-1, queries].argmax(1)
    traces, labels = [], []
    for place in reversed(range(len(queries))):
        label = int(final[place])
        colour = class_colour(label)
        score = float(scores[place, label])
        text = f"{escape(class_name(state.lang, run.config.names[label]))} {score:.2f}"
        before, after = (tuple(boxes[index, place].tolist()) for index in (layer, layer + 1))
        common = {"type": "scatter", "mode": "lines", "meta": {"query": queries[place]}, "name": text}
        moved = {**common, **outline(before), "line": {"color": colour, "width": 1.5, "dash": "dot"}, "hoverinfo": "skip"}
        chosen = queries[place] == state.query
        solid = {"line": {"color": colour, "width": 4 if chosen else 2.5}, "hoverinfo": "text", "text": text}
        boxed = {**common, **outline(after), **solid}
        way = {"x": middles[:, place, 0], "y": middles[:, place, 1], "mode": "lines+markers"}
        dots = {"size": [4] * (layer + 1) + [8], "color": colour, "line": {"width": 1, "color": RIM}}
        way |= {"line": {"color": colour, "width": 1.5}, "marker": dots, "hoverinfo": "skip"}
        traces += [boxed] if at_rest else [moved, boxed, {**common, **way}]
        labels.append(_label(text, colour, after, run.size))
    drawn = canvas(run, traces, veil=VEIL, annotations=labels)
    drawn["layout"]["meta"] = {"panels": [{"x": "x", "y": "y"}]}
    return drawn


def _label(text: str, colour: str, box: tuple[float, float, float, float], size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    x, y = min(max(box[0], 0.0), width), min(max(box[1], 0.0), height)
    return tag(text, colour, **corner(x, x, y, size, 0.045 * height))
