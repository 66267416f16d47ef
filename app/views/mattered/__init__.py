"""What mattered: the result again without a point, head, scale or the whole step of one query, and points ranked by effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from app.drawing import controls as settings
from app.drawing.canvas import Drawing, canvas, outline
from app.drawing.chart import chart, name_axis, value_axis
from app.drawing.marks import diameters, hoverlabel, sampling_points
from app.i18n import number, say
from app.run.choice import QueryChoice, choose
from app.run.run import Run
from app.run.state import ViewState
from app.theme import CHANGED, NEUTRAL, RIM, RIM_OF_SMALL, WHITE, scale_colour, scale_symbol
from app.views.mattered.muting import Effects, all_effects, as_it_is, followed, muted, named
from app.views.view import View
from litedetr import Detector

VEIL = 0.45
_MUTED = "x-thin-open"
ROWS = 12
"""Points listed beside the figure."""


def drawing(run: Run, state: ViewState) -> Drawing:
    """The query's points, as large as their effect on the score (by weight before it is computed): filled where muting takes from
    the score, hollow where it adds; the object's box as it is, and dashed as it would be without what is muted."""
    chosen, effects = choose(run, state), _effects(run, state)
    traces = [_path(as_it_is(run, state).box, WHITE, "solid", say(state.lang, "mattered.before"))]
    if effects is not None and effects.muted is not None:
        traces.append(_path(effects.muted.box, CHANGED, "dash", say(state.lang, "mattered.after")))
    traces += [_points(run, state, chosen, effects, scale) for scale in chosen.step.scales if scale not in state.hidden]
    return canvas(run, traces, veil=VEIL)


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """Effects of the points, heads and scales, by weight and by effect."""
    lang, chosen, effects = state.lang, choose(run, state), _effects(run, state)
    query, label, notes = followed(run, state)
    name = run.config.names[label]
    notes = [say(lang, f"mattered.note.{key}") for key in notes] + [say(lang, "mattered.note.muted")]
    base = {"query": query, "label": label, "step": chosen.step.name, "effects": effects}
    if effects is None:
        return base | {
            "effects": None,
            "caption": say(lang, "mattered.waiting", step=chosen.step.name, name=name),
            "facts": [],
            "notes": notes,
        }
    points = effects.points
    facts = [
        [say(lang, "mattered.score"), f"{effects.score:.3f}"],
        [say(lang, "mattered.rho"), number(effects.rho)],
        [say(lang, "mattered.whole"), _against(effects.outcomes["step"].score, effects.score)],
    ]
    if effects.muted is not None:
        facts += [
            [say(lang, "mattered.without", what=", ".join(state.mute)), _against(effects.muted.score, effects.score)],
            [say(lang, "mattered.moved"), f"{effects.muted.moved:.1f} px, IoU {effects.muted.overlap:.3f}"],
        ]
    elif state.mute:
        notes.insert(0, say(lang, "mattered.note.compute", what=", ".join(state.mute)))
    order = np.argsort(-np.abs(points.change), kind="stable")[:ROWS]
    ranks = _ranks(points.weight)
    rows = [
        {
            "cells": [points.names[i], f"{points.weight[i]:.3f}", f"{ranks[i]}", number(points.change[i], "+.3f")],
            "set": {"mute": "" if state.mute == (points.names[i],) else points.names[i]},
            "chosen": state.mute == (points.names[i],),
        }
        for i in order
    ]
    head = [say(lang, f"mattered.column.{key}") for key in ("point", "weight", "rank", "effect")]
    numbers = {"score": effects.score, "rho": effects.rho, "change": points.change.tolist(), "weight": points.weight.tolist()}
    return base | {
        "effects": numbers,
        "caption": say(lang, "mattered.caption", step=chosen.step.name, name=name, score=f"{effects.score:.2f}"),
        "facts": facts,
        "notes": notes,
        "table": {"head": head, "rows": rows},
    }


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """What is muted: nothing, the whole step, a head or a scale; single points by the table."""
    step, lang = choose(run, state).step, state.lang
    options = [["", say(lang, "mattered.nothing")], ["step", say(lang, "mattered.step")]]
    options += [[f"h{head + 1}", f"{say(lang, 'head')} {head + 1}"] for head in range(step.weights.shape[1])]
    options += [[scale, scale] for scale in sorted(step.scales)]
    value = ",".join(state.mute)
    if value not in (option[0] for option in options):
        options.append([value, value])
    return [settings.choice("mute", say(lang, "mattered.mute"), value, options)]


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """Rank by weight against rank by effect; the effect of each head and scale."""
    effects = _effects(run, state)
    return [] if effects is None else [_rank_chart(effects, state.lang), _part_chart(effects, state.lang)]


def job(run: Run, state: ViewState) -> str | None:
    """All points, heads and scales of the query at the step, each alone; and what is muted, where that is several of them."""
    key = _key(run, state)
    return key if len(state.mute) < 2 else f"{key} without {','.join(state.mute)}"


def work(run: Run, state: ViewState, detectors: Callable[..., Detector], report: Callable[[float, str], None]) -> Effects:
    """Every point, head, scale and the step muted in turn (once for a query and step), then what the visitor muted together."""
    detector = detectors(run.source, plain=True)
    everything = run.extras.memo(_key(run, state), lambda: all_effects(run, state, detector, lambda share: report(share, "")))
    return everything if len(state.mute) < 2 else muted(run, state, detector, everything)


# ---- what the parts above share ----


def _key(run: Run, state: ViewState) -> str:
    chosen = choose(run, state)
    return f"mattered {chosen.index} {chosen.row} of {followed(run, state)[:2]}"


def _effects(run: Run, state: ViewState) -> Effects | None:
    """What is known: without what is muted, else (before that is computed) of all points alone."""
    known = run.extras.get(job(run, state)) or run.extras.get(_key(run, state))
    if known is None or len(state.mute) != 1:
        return known
    return replace(known, muted=known.outcomes.get(state.mute[0]))


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the largest."""
    ranks = np.empty(len(values), int)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


def _against(score: float, before: float) -> str:
    return f"{score:.3f} ({number(score - before, '+.3f')})"


def _path(box, colour: str, dash: str, name: str) -> dict[str, Any]:
    line = {"color": colour, "width": 2.5, "dash": dash}
    return {"type": "scatter", "mode": "lines", **outline(box), "line": line, "hoverinfo": "name", "name": name}


def _points(run: Run, state: ViewState, chosen: QueryChoice, effects: Effects | None, scale: str) -> dict[str, Any]:
    level, colour = chosen.step.scales.index(scale), scale_colour(scale)
    M, L, P = chosen.weights.shape
    size = chosen.weights if effects is None else np.abs(effects.points.change).reshape(M, L, P)
    change = None if effects is None else effects.points.change.reshape(M, L, P)[:, level].ravel()
    relative = (size[:, level] / max(float(size.max()), 1e-12)).ravel()
    x, y = np.moveaxis(run.to_photo(chosen.locations[:, level]).reshape(-1, 2), -1, 0)
    names = [named(head, scale, point) for head in range(M) for point in range(P)]
    off = [_is_muted(name, state.mute) for name in names]
    words = [
        f"<b>{name}</b><br>{say(state.lang, 'weight')} {weight:.4f}"
        + ("" if change is None else f"<br>{say(state.lang, 'mattered.column.effect')} {number(change[i], '+.3f')}")
        for i, (name, weight) in enumerate(zip(names, chosen.weights[:, level].ravel(), strict=True))
    ]
    adds = np.zeros(len(names), bool) if change is None else change > 0
    symbol = scale_symbol(scale)
    open_ = [gone or plus for gone, plus in zip(off, adds, strict=True)]
    marker = {
        "symbol": [_MUTED if gone else f"{symbol}-open" if plus else symbol for gone, plus in zip(off, adds, strict=True)],
        "size": diameters(relative),
        "line": {
            "width": [2.5 if hollow else 1 for hollow in open_],
            "color": [colour if hollow else RIM for hollow in open_],
        },
    }
    common = {"text": words, "hovertemplate": "%{text}<extra></extra>", "hoverlabel": hoverlabel(colour), "cliponaxis": False}
    return sampling_points(scale, x, y, marker, **common)


def _is_muted(name: str, mute: tuple[str, ...]) -> bool:
    head, scale, _ = name.split(".")
    return any(part in mute for part in ("step", head, scale, name))


def _rank_chart(effects: Effects, lang: str) -> Drawing:
    by_weight, by_effect = _ranks(effects.points.weight), _ranks(np.abs(effects.points.change))
    scales = np.array([name.split(".")[1] for name in effects.points.names])
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": scale,
            "x": by_weight[scales == scale],
            "y": by_effect[scales == scale],
            "text": [name for name in effects.points.names if name.split(".")[1] == scale],
            "customdata": [{"set": {"mute": name}} for name in effects.points.names if name.split(".")[1] == scale],
            "marker": {"symbol": scale_symbol(scale), "color": scale_colour(scale), "size": 7,
                       "line": {"width": 0.5, "color": RIM_OF_SMALL}},
            "hovertemplate": "<b>%{text}</b><br>%{x} → %{y}<extra></extra>",
        }
        for scale in sorted(set(scales))
    ]  # fmt: skip
    axes = {
        "xaxis": value_axis(title={"text": say(lang, "mattered.by_weight"), "font": {"size": 11}}, autorange="reversed"),
        "yaxis": value_axis(title={"text": say(lang, "mattered.by_effect"), "font": {"size": 11}}, autorange="reversed"),
    }
    drawing = chart(traces, say(lang, "mattered.chart.ranks"), 190, scales=sorted(set(scales)), **axes)
    drawing["layout"]["margin"] |= {"l": 52, "b": 40}
    drawing["layout"]["height"] += 16
    return drawing


def _part_chart(effects: Effects, lang: str) -> Drawing:
    names = [*effects.parts.names]
    colours = [scale_colour(name) if name.startswith("S") else NEUTRAL for name in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": effects.parts.change,
        "marker": {"color": colours},
        "customdata": [{"set": {"mute": name}} for name in names],
        "hovertemplate": "<b>%{y}</b> %{x:+.4f}<extra></extra>",
    }
    return chart([bars], say(lang, "mattered.chart.parts"), 19 * len(names), xaxis=value_axis(), yaxis=name_axis(), bargap=0.3)


VIEW = View("mattered", drawing, summary, group="change", controls=controls, charts=charts, job=job, work=work, own=True)
