"""Full against Lite: the same photo through two encoders, side by side."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from app.drawing import controls as settings
from app.drawing.canvas import Drawing, outline
from app.drawing.chart import chart, name_axis, value_axis
from app.drawing.marks import SHOWN, apart, cut, hoverlabel, tag
from app.drawing.panels import Panel, panels
from app.i18n import class_name, say
from app.run.model_list import FULL, OWN, alike_exists, describe, other_models
from app.run.run import Run
from app.run.state import HUB_ID, ViewState
from app.theme import CHANGED, NEUTRAL, NOTHING, OURS, class_colour
from app.views.versus.comparison import ModelResult, compare, every_scale, matched
from app.views.view import View
from litedetr import Detector
from litedetr.cost import full_encoder, gmacs

SIDES = ("left", "right")
EVERY = "every"
"""As `ViewState.other`: the run's own weights, each of whose encoder layers updates every scale."""
LABELS = 16
"""Of each side; boxes without one say their class on hover."""


def drawing(run: Run, state: ViewState) -> Drawing:
    """Both photos with their detections: thin where both have them, thick and dashed where one has them alone."""
    results = _results(run, state)
    if results is None:
        found, (shown, _) = run.detections, cut(run.shown(state.threshold), state.lang)
        named = [(found.boxes[i], found.names[i], float(found.scores[i]), False) for i in shown]
        return panels(run, [_panel(run, state.lang, run.config.schedule, named), Panel(_short(run, state))], veil=0.25)
    pairs = matched(results["left"], results["right"], state.threshold)
    contents = []
    for place, side in enumerate(SIDES):
        result = results[side]
        drawn, _ = cut(_of(pairs, place), state.lang)
        kept = [(pair[place], None in pair) for pair in pairs if pair[place] in drawn]
        named = [(result.boxes[i], result.names[i], float(result.scores[i]), alone) for i, alone in kept]
        contents.append(_panel(run, state.lang, f"{_short(run, state, result, side)} · {result.milliseconds:.0f} ms", named))
    return panels(run, contents, veil=0.25)


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """Time, multiply-adds and detections of both."""
    lang, results, kind = state.lang, _results(run, state), _kind(run, state)
    notes = [say(lang, f"versus.note.{kind}")]
    if kind == "same" and run.config.encoder_schedule.is_full:
        notes.append(say(lang, "versus.note.full"))
    elif kind != "other" and run.config.key_aware:  # the other views' full encoder is the paper's
        plain = gmacs(full_encoder(run.config), run.trace.geometry.padded)
        notes.append(say(lang, "versus.note.plain", gmacs=f"{plain.encoder:.2f}"))
    if results is None:
        return {"caption": say(lang, "versus.waiting"), "facts": [], "notes": notes, "results": None}
    left, right = (results[side] for side in SIDES)
    pairs = matched(left, right, state.threshold)
    both = [pair for pair in pairs if None not in pair]
    _, cuts = cut(max((_of(pairs, place) for place in (0, 1)), key=len), lang)
    only = [sum(pair[place] is not None and None in pair for pair in pairs) for place in (0, 1)]
    facts = [
        [say(lang, "versus.time"), f"{left.milliseconds:.0f} / {right.milliseconds:.0f} ms"],
        [say(lang, "versus.encoder_time"), f"{left.encoder_ms:.0f} / {right.encoder_ms:.0f} ms"],
        [say(lang, "versus.gmacs"), f"{left.gmacs:.2f} / {right.gmacs:.2f} GMACs"],
        [say(lang, "versus.encoder_gmacs"), f"{left.encoder_gmacs:.2f} / {right.encoder_gmacs:.2f} GMACs"],
        [say(lang, "versus.both"), f"{len(both)}"],
        [say(lang, "versus.only"), f"{only[0]} / {only[1]}"],
    ]
    return {
        "caption": say(
            lang, "versus.caption", left=left.name, right=_right(run, state, right), both=len(both), l=only[0], r=only[1]
        ),
        "facts": facts,
        "notes": [*cuts, *notes, say(lang, "versus.note.match"), say(lang, "versus.note.time")],
        "results": {side: {key: value for key, value in vars(results[side]).items() if key not in ("boxes", "names", "scores")}
                   for side in SIDES},
        "pairs": pairs,
        "table": {
            "head": [say(lang, "class"), say(lang, "versus.left"), say(lang, "versus.right"), "IoU"],
            "rows": [{"cells": _cells(lang, left, right, pair), "set": None} for pair in pairs],
        },
    }  # fmt: skip


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """The other side."""
    alike = [[FULL, say(state.lang, "versus.alike")]] if alike_exists(run) else []
    others = [option for option in other_models(run, state) if not (alike and option[0] == FULL)]
    options = [*alike, [EVERY, say(state.lang, "versus.every")], *others]
    return [settings.choice("other", say(state.lang, "versus.with"), _other(run, state), options)]


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """Milliseconds of both, the encoder's part told apart."""
    results = _results(run, state)
    if results is None:
        return []
    names = [say(state.lang, f"versus.{side}") for side in SIDES]
    encoder = [results[side].encoder_ms for side in SIDES]
    rest = [results[side].milliseconds - results[side].encoder_ms for side in SIDES]
    bars = [
        _bars(say(state.lang, "versus.bar.encoder"), names, encoder, OURS),
        _bars(say(state.lang, "versus.bar.rest"), names, rest, NEUTRAL),
    ]
    axes = {"xaxis": value_axis(ticksuffix=" ms", rangemode="tozero"), "yaxis": name_axis()}
    return [chart(bars, say(state.lang, "versus.time"), 64, legend=True, barmode="stack", bargap=0.25, **axes)]


def job(run: Run, state: ViewState) -> str | None:
    """Both models must see the photo, in turns."""
    return f"versus {_other(run, state)}"


def work(
    run: Run, state: ViewState, detectors: Callable[[str], Detector], report: Callable[[float, str], None]
) -> dict[str, ModelResult]:
    """Detections and times of both."""
    ours, source = detectors(run.source), _other(run, state)
    other = every_scale(ours) if source == EVERY else detectors("" if source == OWN else source)
    name = f"{source} · {other.config.schedule}" if HUB_ID.match(source) else describe(other.config)
    return compare(run, {"left": (ours, run.model), "right": (other, name)}, report)


def _results(run: Run, state: ViewState) -> dict[str, ModelResult] | None:
    return run.extras.get(job(run, state))


def _other(run: Run, state: ViewState) -> str:
    """What is compared with: where nobody chose, a full encoder that was trained alike, else `EVERY`."""
    if state.other == OWN or HUB_ID.match(state.other):
        return state.other
    return FULL if state.other == "" and alike_exists(run) else EVERY


def _kind(run: Run, state: ViewState) -> str:
    """"same" weights, trained "alike", or an "other" model."""
    other = _other(run, state)
    return "same" if other == EVERY else "alike" if other == FULL and alike_exists(run) else "other"


def _of(pairs: list[tuple[int | None, int | None, float]], place: int) -> list[int]:
    """The detections of one side, best first."""
    return sorted(pair[place] for pair in pairs if pair[place] is not None)


def _right(run: Run, state: ViewState, result: ModelResult) -> str:
    """What the right side is called, in the visitor's language."""
    words = {"same": "versus.every", "alike": "versus.alike"}.get(_kind(run, state))
    return result.name if words is None else say(state.lang, words)


def _short(run: Run, state: ViewState, result: ModelResult | None = None, side: str = "right") -> str:
    """A title that fits over half a phone's width."""
    if side == "right":
        words = {"same": "versus.every_short", "alike": "versus.alike_short"}.get(_kind(run, state))
        if words is not None:
            return say(state.lang, words)
        if HUB_ID.match(state.other):
            return state.other.rpartition("/")[2]
    return say(state.lang, "models.own") if result is None else result.schedule


def _panel(run: Run, lang: str, title: str, named: list[tuple[np.ndarray, str, float, bool]]) -> Panel:
    """A photo with boxes (box, name, score, whether this side alone has it), all cut at the photo's edge."""
    height, width = run.size
    names = run.config.names
    traces, labels = [], []
    for number, (box, name, score, alone) in enumerate(named):
        colour = CHANGED if alone else class_colour(names.index(name) if name in names else 0)
        box = np.clip(box, 0, [width, height, width, height])
        text = f"{escape(class_name(lang, name))} {score:.2f}"
        traces.append(_box(box, text, colour, alone))
        x1, y1, x2, y2 = (float(value) for value in box)
        rightmost, low = x1 > 0.5 * width, number % 2 == 1  # half a photo is room for any name; names of like boxes stay apart
        place = {"x": x2 if rightmost else x1, "y": y2 if low else y1}
        anchors = {"xanchor": "right" if rightmost else "left", "yanchor": "bottom" if low else "top"}
        labels.append([tag(text, colour, **place, **anchors)])
    return Panel(title, traces, apart(labels, 2 * width / SHOWN, LABELS)[::-1])  # the best on top


def _box(box: np.ndarray, text: str, colour: str, alone: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        **outline(box),
        "mode": "lines",
        "line": {"color": colour, "width": 3.5 if alone else 2, "dash": "dash" if alone else "solid"},
        "fill": "toself",
        "fillcolor": NOTHING,
        "hoveron": "fills",
        "hoverinfo": "name",
        "name": text,
        "hoverlabel": hoverlabel(colour),
    }


def _bars(name: str, sides: list[str], values: list[float], colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": sides,
        "x": values,
        "marker": {"color": colour},
        "hovertemplate": f"{name}: %{{x:.1f}} ms<extra></extra>",
    }


def _cells(lang: str, left: ModelResult, right: ModelResult, pair: tuple[int | None, int | None, float]) -> list[str]:
    i, j, overlap = pair
    name = left.names[i] if i is not None else right.names[j]
    return [
        class_name(lang, name),
        "–" if i is None else f"{left.scores[i]:.2f}",
        "–" if j is None else f"{right.scores[j]:.2f}",
        "–" if None in pair else f"{overlap:.2f}",
    ]


VIEW = View(
    "versus", drawing, summary, group="change", controls=controls, charts=charts, job=job, work=work, rail=False, own=True
)
