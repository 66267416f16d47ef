"""Figure 5, live: the heaviest sampling points of all queries on one scale, beside what attention that ignores the keys takes.

What is ranked is the attention weight of each sample (query, head, point) of a step on the scale; the weights of one query and
head sum to 1 over all scales. The second panel is a second model on the same photo where one was chosen (`other`), else the same
points with equal weights, which is softmax attention whose keys say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from app.drawing import controls as settings
from app.drawing.canvas import Drawing, outline, outlines
from app.drawing.chart import chart, value_axis
from app.drawing.marks import diameters, hoverlabel, sampling_points
from app.drawing.panels import Panel, panels
from app.i18n import say
from app.run import choice
from app.run.model_list import OWN, describe, other_models
from app.run.run import Run
from app.run.state import AUTO, HUB_ID, ViewState
from app.run.step_queries import StepQueries, queries_of
from app.theme import GRID, NEUTRAL, RIM, WHITE, scale_colour
from app.views.attended.heaviest import MOST, OtherModel, Samples, heaviest, other_model
from app.views.view import View
from litedetr import AttentionStep, Detector

VEIL = 0.5
SMALLEST, LARGEST = 3.5, 11.0
"""Diameter in screen pixels of a point without weight and of the heaviest in both panels; area grows with weight."""
NEAR = 0.03
"""A click takes the drawn sample that is nearest, at most this far, relative to the photo's longer side."""


def drawing(run: Run, state: ViewState) -> Drawing:
    """Two photos with the heaviest points: the model's own weights, and the other's; one measure of size for both."""
    shown = _Shown(run, state)
    heaviest_ = max(float(samples.weights.max(initial=0)) for samples in shown.samples)
    contents = []
    for place, samples in enumerate(shown.samples):
        traces = [outlines(run, state, 0.6, 1.25), _points(shown, samples, heaviest_, named=place == 0 or shown.other is None)]
        contents.append(Panel(shown.title(place), [*traces, *_asked_here(shown, place)]))
    return panels(run, contents, veil=VEIL)


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """Both panels in numbers, each list own first: ``held`` (share of the scale's attention that the points hold), ``inside``
    (share of theirs that lies in the boxes of the detections shown), ``outside`` (points beyond the photo), ``heaviest``."""
    shown, lang = _Shown(run, state), state.lang
    own = shown.samples[0]
    boxes = run.detections.boxes[run.shown(state.threshold, state.classes)]
    held = [float(samples.curve[-1]) for samples in shown.samples]
    inside = [_share_inside(samples, boxes) for samples in shown.samples]
    outside = [int(_beyond(run, samples).sum()) for samples in shown.samples]
    heaviest_ = [float(samples.weights.max(initial=0)) for samples in shown.samples]
    area = _covered(run, boxes)
    lines = [
        ("attended.held", [f"{value:.2%}" for value in held]),
        ("attended.inside", [f"{value:.0%}" for value in inside]),
        ("attended.heaviest", [f"{value:.3f}" for value in heaviest_]),
        ("attended.outside", [str(value) for value in outside]),
    ]
    return {
        "step": shown.step.name,
        "scale": shown.scale,
        "top": len(own.weights),
        "of": own.count,
        "held": held,
        "inside": inside,
        "outside": outside,
        "heaviest": heaviest_,
        "covered": area,
        "facts": [
            [say(lang, "attended.ranked"), say(lang, "attended.of", top=f"{len(own.weights):,}", count=f"{own.count:,}")],
            [say(lang, "attended.scale", scale=shown.scale), f"{own.total / np.prod(shown.step.weights.shape[:2]):.1%}"],
            [say(lang, "attended.covered"), f"{area:.0%}"],
            *_who(shown, own),
        ],
        "notes": shown.notes(),
        "caption": say(lang, "attended.caption", top=len(own.weights), scale=shown.scale, step=shown.step.name),
        "table": {
            "head": ["", *(shown.title(place, short=True) for place in range(2))],
            "rows": [{"cells": [say(lang, key), *cells], "set": None} for key, cells in lines],
        },
    }


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """The scale, how many points, and the second model."""
    shown, lang = _Shown(run, state), state.lang
    others = [["", say(lang, "attended.equal")], *other_models(run, state)]
    most = min(MOST, shown.samples[0].count)
    top = {"key": "n", "kind": "range", "label": say(lang, "attended.top"), "value": min(state.top, most)}
    return [
        settings.scale(say(lang, "attended.on"), shown.scale, shown.step.scales),
        {**top, "min": 1, "max": most, "step": 1},
        settings.choice("other", say(lang, "attended.other"), state.other, others),
    ]


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """How fast the heaviest samples add up."""
    return [_curves(_Shown(run, state))]


def job(run: Run, state: ViewState) -> str | None:
    """A second model must see the photo."""
    source = _source(run, state)
    return None if source is None else f"attended by {source or OWN}"


def work(run: Run, state: ViewState, detectors: Callable[[str], Detector], report: Callable[[float, str], None]) -> OtherModel:
    """The second model's heaviest samples of every step and scale."""
    detector = detectors(_source(run, state))
    return other_model(run, detector, describe(detector.config), report)


def pick(run: Run, state: ViewState, x: float, y: float) -> ViewState:
    """A click on a point of the first panel chooses the query that asked for it; elsewhere, the point of the photo."""
    shown = _Shown(run, state)
    own, who = shown.samples[0], shown.queries
    height, width = run.size
    distances = np.hypot(own.x - x * width, own.y - y * height)
    nearest = int(distances.argmin())
    if distances[nearest] > NEAR * max(run.size):
        return choice.pick_point(run, state.with_(step=shown.step.name), x, y)
    row = int(own.rows[nearest])
    if who.levels is None:
        return state.with_(query=row, point=None, step=shown.step.name)
    centre = np.clip(who.centres[row] / (width, height), 0, 1)
    return state.with_(query=None, point=(float(centre[0]), float(centre[1])), step=shown.step.name)


class _Shown:
    """What a state means in this view: the step, the scale that is looked at, and both panels' samples."""

    def __init__(self, run: Run, state: ViewState):
        self.run, self.state = run, state
        self.step: AttentionStep = _step(run, state)
        self.scale = state.scale if state.scale in self.step.scales else self.step.scales[0]
        self.job = job(run, state)
        self.other: OtherModel | None = run.extras.get(self.job)
        top = min(state.top, MOST)
        self.standin = None if self.other is None else self.other.like(self.step, self.scale)
        second = self._ranked(True) if self.standin is None else self.standin[2]
        self.samples = (self._ranked(False).first(top), second.first(top))

    def _ranked(self, uniform: bool) -> Samples:
        level = self.step.scales.index(self.scale)
        key = f"heaviest {self.step.name} {self.scale} {'equal' if uniform else 'own'}"
        return self.run.extras.memo(key, lambda: heaviest(self.step, level, self.run.to_photo, MOST, uniform))

    @cached_property
    def queries(self) -> StepQueries:
        return queries_of(self.run, self.step)

    def title(self, place: int, short: bool = False) -> str:
        lang, kind = self.state.lang, "short" if short else "title"
        if place == 0:
            return say(lang, f"attended.{kind}.kda" if self.step.query is not None else f"attended.{kind}.plain")
        if self.other is None:
            return say(lang, f"attended.{kind}.equal")
        return say(lang, f"attended.{kind}.other.{'kda' if self.other.key_aware else 'plain'}")

    def notes(self) -> list[str]:
        lang = self.state.lang
        notes = [say(lang, "attended.note.ranked")]
        if self.other is not None:
            step, scale, _ = self.standin
            keys = "attended.note.other.kda" if self.other.key_aware else "attended.note.other.plain"
            notes += [say(lang, "attended.note.other", model=self.other.name, step=step, scale=scale), say(lang, keys)]
        else:
            notes.append(say(lang, "attended.note.kda" if self.step.query is not None else "attended.note.plain"))
            if self.job is not None:
                notes.insert(0, say(lang, "attended.note.waiting", model=self.state.other))
        if self.state.top > MOST:
            notes.append(say(lang, "attended.note.most", most=MOST))
        return notes


def _source(run: Run, state: ViewState) -> str | None:
    """What `detectors` calls the second model; None where there is none, or it is the run's own."""
    source = "" if state.other == OWN else state.other if HUB_ID.match(state.other) else None
    return None if source == run.source else source


def _step(run: Run, state: ViewState) -> AttentionStep:
    """The step chosen, else the last of the encoder, as in the paper."""
    steps = run.trace.encoder_steps or run.trace.steps
    if state.step == AUTO or state.step not in run.step_names:
        return steps[-1]
    return run.trace.step(state.step)


def _beyond(run: Run, samples: Samples) -> np.ndarray:
    height, width = run.size
    return (samples.x < 0) | (samples.x > width) | (samples.y < 0) | (samples.y > height)


def _share_inside(samples: Samples, boxes: np.ndarray) -> float:
    """Share of the samples' attention that lies in any of the boxes, xyxy."""
    x, y = samples.x[:, None], samples.y[:, None]
    within = ((boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])).any(axis=1)
    return float(samples.weights[within].sum(dtype=np.float64) / max(samples.weights.sum(dtype=np.float64), 1e-12))


def _covered(run: Run, boxes: np.ndarray) -> float:
    """Share of the photo's area under any of the boxes, to a pixel."""
    under = np.zeros(run.size, dtype=bool)
    for x1, y1, x2, y2 in np.rint(boxes).astype(int):
        under[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return float(under.mean())


def _who(shown: _Shown, samples: Samples) -> list[list[str]]:
    """Whose tokens took the points, per scale; nothing in the decoder."""
    who = shown.queries
    if who.levels is None:
        return []
    counts = np.bincount(who.levels[samples.rows], minlength=len(shown.step.scales))
    shares = [
        f"{scale}\u00a0{counts[level] / len(samples.rows):.0%}" for level, scale in enumerate(shown.step.scales) if counts[level]
    ]
    return [[say(shown.state.lang, "attended.who"), " · ".join(reversed(shares))]]


def _points(shown: _Shown, samples: Samples, heaviest_: float, named: bool) -> dict[str, Any]:
    """The samples; light ones on top. `named`: whose query is in this run, so that its row can be told."""
    order = np.arange(len(samples.weights))
    relative = samples.weights / max(heaviest_, 1e-12)
    lang = shown.state.lang
    rows = samples.rows if named else np.full(len(order), -1)
    details = np.stack((order + 1, samples.weights, rows, samples.heads + 1, samples.points + 1), axis=1)
    words = {key: say(lang, key) for key in ("head", "point", "weight")} | {"rank": say(lang, "attended.rank")}
    size, opacity = diameters(relative, SMALLEST, LARGEST), (0.55 + 0.35 * relative).astype(np.float32)
    return sampling_points(
        shown.scale,
        samples.x,
        samples.y,
        {"size": size, "opacity": opacity, "line": {"width": 0.75, "color": RIM}},
        customdata=details.astype(np.float32),
        hovertemplate=(
            f"{words['rank']} %{{customdata[0]}} · {words['weight']} %{{customdata[1]:.4f}}<br>"
            f"{words['head']} %{{customdata[3]}} · {words['point']} %{{customdata[4]}}<extra></extra>"
        ),
        hoverlabel=hoverlabel(scale_colour(shown.scale)),
    )


def _asked_here(shown: _Shown, place: int) -> list[dict[str, Any]]:
    """The object or the point that is chosen, and rings around the points that it (or a token that holds it) asked for."""
    state, who = shown.state, shown.queries
    height, width = shown.run.size
    if who.levels is None and state.query is not None and state.query < len(who.boxes):
        asked = np.arange(len(who.boxes)) == state.query
        mark = {
            "mode": "lines",
            **outline(tuple(who.boxes[state.query])),
            "line": {"color": WHITE, "width": 2, "dash": "dash"},
        }
    elif state.point is not None and state.query is None:
        x, y = state.point[0] * width, state.point[1] * height
        asked = who.holding(x, y) if who.levels is not None else np.zeros(len(who.boxes), dtype=bool)
        cross = {"symbol": "cross-thin", "size": 20, "line": {"width": 2.5, "color": WHITE}}
        mark = {"mode": "markers", "x": [x], "y": [y], "marker": cross}
    else:
        return []
    found = [{"type": "scatter", **mark, "hoverinfo": "skip", "name": "chosen"}]
    if place == 0 or shown.other is None:
        samples = shown.samples[place]
        ringed = asked[samples.rows]
        ring = {"symbol": "circle-open", "size": LARGEST + 4, "color": WHITE, "line": {"width": 2}}
        points = {"mode": "markers", "x": samples.x[ringed].astype(np.float32), "y": samples.y[ringed].astype(np.float32)}
        found.append({"type": "scatter", **points, "marker": ring, "hoverinfo": "skip", "name": "asked"})
    return found


def _curves(shown: _Shown) -> Drawing:
    """Attention held by the n heaviest samples, both panels; n on a logarithmic axis."""
    lang, n = shown.state.lang, len(shown.samples[0].weights)
    pair = (shown._ranked(False), shown._ranked(True) if shown.standin is None else shown.standin[2])
    styles = ({"color": scale_colour(shown.scale), "width": 2.5}, {"color": NEUTRAL, "width": 2, "dash": "dash"})
    traces = []
    for place, (samples, line) in enumerate(zip(pair, styles, strict=True)):
        steps = np.unique(np.geomspace(1, len(samples.weights), 80).astype(int))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": shown.title(place, short=True),
                "x": steps,
                "y": samples.curve[steps - 1].astype(np.float32),
                "line": line,
                "hovertemplate": "n = %{x}: %{y:.2%}<extra>%{fullData.name}</extra>",
            }
        )
    here = {"type": "line", "xref": "x", "x0": n, "x1": n, "yref": "paper", "y0": 0, "y1": 1}
    shapes = [{**here, "line": {"color": GRID, "width": 3}, "layer": "below"}]
    axes = {"xaxis": value_axis(type="log", dtick=1), "yaxis": value_axis(tickformat=".0%", rangemode="tozero")}
    drawing = chart(traces, say(lang, "attended.curve", scale=shown.scale), 150, legend=True, shapes=shapes, **axes)
    drawing["layout"]["margin"]["l"] = 46
    return drawing


VIEW = View("attended", drawing, summary, controls=controls, charts=charts, pick=pick, job=job, work=work)
