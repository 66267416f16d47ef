"""Refinement onion-skin: one detection from its encoder token through every decoder layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

import numpy as np
import torch
from plotly.colors import sample_colorscale

from app.drawing.canvas import Drawing, canvas, outline
from app.drawing.chart import band, line_at, name_at, small_chart
from app.drawing.marks import diameters, sampling_points
from app.i18n import class_name, say, step_name
from app.run import choice
from app.run.choice import QueryChoice, choose, pick_object
from app.run.run import Run
from app.run.state import AUTO, ViewState
from app.run.token_place import token_place
from app.theme import HALO_OF_SKIN, NEUTRAL, WAY, class_colour
from app.views.view import View
from litedetr.boxes import iou

VEIL = 0.45
FAINTEST = 0.6
SHADES = (0.52, 1.0)
"""Part of Viridis that reads on a dimmed photo, oldest skin to newest."""
LARGEST = 18.0
"""Diameter of the heaviest point, in screen pixels."""


@dataclass(frozen=True)
class Skin:
    """The query at one stage: 0, the encoder token; then after each decoder layer.

    Attributes:
        step: name of the decoder layer, "" for the token.
        box: xyxy in the photo's pixels, not clipped to it; without area where the query began as a point.
        score: of the class that the query ends with; None where the stage gave no class scores.
        other, other_score: index and score of the best other class; None likewise.
        moved: distance of the box's centre from that of the stage before, in the photo's pixels; None at the first.
        overlap: IoU with the last box.
    """

    step: str
    box: tuple[float, float, float, float]
    score: float | None
    other: int | None
    other_score: float | None
    moved: float | None
    overlap: float


def drawing(run: Run, state: ViewState) -> Drawing:
    """The boxes over each other, oldest faint, the shown stage's bold, and the sampling points of that stage."""
    stages, shown = skins(run, chosen_query(run, state)[0]), stage_of(run, state)
    traces = [*_points(run, state), *_way(stages)]
    for index in range(len(stages)):
        traces += _skin(state, stages, index, index == shown)
    legend = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0, "yanchor": "top", "font": {"size": 12}}
    drawn = canvas(run, traces, veil=VEIL, showlegend=True, legend={**legend, "itemclick": False, "itemdoubleclick": False})
    drawn["layout"]["margin"] = {**drawn["layout"]["margin"], "b": 34}
    drawn["layout"]["meta"] = {"panels": [{"x": "x", "y": "y"}]}
    return drawn


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """Score of the class and of the best other one, stage by stage."""
    query, _ = chosen_query(run, state)
    return [_scores(run, state, skins(run, query), label_of(run, query))]


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """Every stage's box and scores, and how far the box came."""
    query, notes = chosen_query(run, state)
    stages, shown, label = skins(run, query), stage_of(run, state), label_of(run, query)
    token = None if run.trace.selected_tokens is None else int(run.trace.selected_tokens[query])
    first, last = (np.array(stages[index].box) for index in (0, -1))
    numbers = {
        "query": query,
        "label": label,
        "name": run.config.names[label],
        "token": token,
        "stage": shown,
        "step": stages[shown].step or _token_step(run, state),
        "stages": [vars(skin) for skin in stages],
        "way": float(sum(skin.moved or 0.0 for skin in stages)),
        "straight": float(np.linalg.norm((last[:2] + last[2:] - first[:2] - first[2:]) / 2)),
        "points": _sampled(run, state) is not None,
    }
    return numbers | _words(run, state, numbers, stages, notes)


def pick(run: Run, state: ViewState, x: float, y: float) -> ViewState:
    """A click means a detection."""
    return pick_object(run, state, x, y)


def move(run: Run, state: ViewState, dx: int, dy: int) -> ViewState:
    """An arrow key leads to the next detection, at the same stage."""
    return choice.move(run, _at_last_layer(run, state), dx, dy).with_(step=state.step)


def chosen_query(run: Run, state: ViewState) -> tuple[int, list[str]]:
    """The decoder query that the state means, and sentences that say so where it is the nearest sensible one."""
    chosen = choose(run, _at_last_layer(run, state).with_(scale=AUTO))
    return chosen.query, chosen.sentences(state.lang)


def label_of(run: Run, query: int) -> int:
    """The best class after the last layer."""
    return int(run.trace.logits[-1, query].argmax())


def stage_of(run: Run, state: ViewState) -> int:
    """Index of the shown stage: 0 in an encoder step, else the decoder layer's number; the last where no step is chosen."""
    layers = [step.name for step in run.trace.decoder_steps]
    if state.step in layers:
        return layers.index(state.step) + 1
    return 0 if state.step in run.step_names or state.step == "backbone" else len(layers)


def skins(run: Run, query: int) -> list[Skin]:
    """Every stage of a query, its token first."""
    trace, label = run.trace, label_of(run, query)
    corners = run.on_photo(trace.boxes[:, query])
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    overlaps = iou(torch.from_numpy(corners), torch.from_numpy(corners[-1]), eps=1e-9).tolist()
    logits: list[torch.Tensor | None] = [None, *trace.logits[:, query].float()]
    if run.tokens_tell_classes:
        logits[0] = trace.proposal_logits[trace.selected_tokens[query]].float()
    names = ["", *[step.name for step in trace.decoder_steps]]
    found = []
    for index, (name, box, overlap) in enumerate(zip(names, corners.tolist(), overlaps, strict=True)):
        moved = float(np.linalg.norm(middles[index] - middles[index - 1])) if index else None
        found.append(Skin(name, tuple(box), *_class_scores(logits[index], label), moved, overlap))
    return found


def _class_scores(logits: torch.Tensor | None, label: int) -> tuple[float | None, int | None, float | None]:
    if logits is None:
        return None, None, None
    scores = logits.sigmoid()
    rest = scores.clone()
    rest[label] = -1.0
    other = int(rest.argmax()) if len(scores) > 1 else None
    return float(scores[label]), other, None if other is None else float(scores[other])


def _at_last_layer(run: Run, state: ViewState) -> ViewState:
    return state.with_(step=run.trace.decoder_steps[-1].name)


def _token_step(run: Run, state: ViewState) -> str:
    encoder = [step.name for step in run.trace.encoder_steps] or ["backbone"]
    return state.step if state.step in encoder else encoder[-1]


def _sampled(run: Run, state: ViewState) -> QueryChoice | None:
    """Who sampled at the shown stage: the query in its layer, or its token in the encoder step if it asked there."""
    query, stage = chosen_query(run, state)[0], stage_of(run, state)
    if not stage and not run.trace.encoder_steps:
        return None
    step = run.trace.decoder_steps[stage - 1].name if stage else _token_step(run, state)
    chosen = choose(run, state.with_(query=query, point=None, scale=AUTO, step=step))
    if stage:
        return chosen
    tokens = run.trace.selected_tokens
    return chosen if tokens is not None and chosen.step.first_query + chosen.row == int(tokens[query]) else None


def _points(run: Run, state: ViewState) -> list[dict[str, Any]]:
    chosen = _sampled(run, state)
    if chosen is None:
        return []
    heads = slice(None) if state.head is None or state.head > len(chosen.weights) else slice(state.head - 1, state.head)
    heaviest = max(float(chosen.weights.max()), 1e-12)
    traces = []
    for level, scale in enumerate(chosen.step.scales):
        if scale in state.hidden:
            continue
        x, y = np.moveaxis(run.to_photo(chosen.locations[heads, level]).reshape(-1, 2), -1, 0)
        weights = chosen.weights[heads, level].ravel()
        marker = {"size": diameters(weights / heaviest, 3.0, LARGEST), "opacity": 0.4, "line": {"width": 0}}
        words = f"<b>{scale}</b><br>{say(state.lang, 'weight')} %{{customdata:.4f}}<extra></extra>"
        common = {"customdata": weights, "hovertemplate": words, "showlegend": False, "cliponaxis": False}
        traces.append(sampling_points(scale, x, y, marker, **common))
    return traces


@cache
def _shade(index: int, count: int) -> tuple[str, float]:
    """Colour and opacity of a skin: the oldest faint."""
    part = index / max(count - 1, 1)
    colour = sample_colorscale("Viridis", [SHADES[0] + (SHADES[1] - SHADES[0]) * part])[0]
    return colour, FAINTEST + (1 - FAINTEST) * part


def _way(stages: list[Skin]) -> list[dict[str, Any]]:
    """The way of the box's centre."""
    x, y = ([(skin.box[axis] + skin.box[axis + 2]) / 2 for skin in stages] for axis in (0, 1))
    shades = [_shade(index, len(stages))[0] for index in range(len(stages))]
    common = {"type": "scatter", "x": x, "y": y, "hoverinfo": "skip", "showlegend": False, "name": "way"}
    marker = {"color": shades, "size": 7, "line": {"width": 1, "color": HALO_OF_SKIN}}
    return [{**common, "mode": "lines+markers", "line": {"color": WAY, "width": 1.5}, "marker": marker}]


def _skin(state: ViewState, stages: list[Skin], index: int, shown: bool) -> list[dict[str, Any]]:
    skin = stages[index]
    colour, opacity = _shade(index, len(stages))
    score = "" if skin.score is None else f"<br>{say(state.lang, 'score')} {skin.score:.3f}"
    text = f"<b>{_stage_name(state, skin)}</b>{score}<br>{say(state.lang, 'onion.overlap')} {skin.overlap:.2f}"
    path = {"type": "scatter", "mode": "lines", **outline(skin.box), "name": _stage_name(state, skin)}
    width = 4.5 if shown else 2.0
    halo = {
        **path,
        "line": {"color": HALO_OF_SKIN, "width": width + 2},
        "opacity": opacity,
        "hoverinfo": "skip",
        "showlegend": False,
    }
    dash = "dot" if index == 0 else "solid"
    line = {"color": colour, "width": width, "dash": dash}
    drawn = {"line": line, "opacity": 1.0 if shown else opacity, "hoverinfo": "text", "text": text, "meta": {"stage": index}}
    return [halo, {**path, **drawn}]


def _stage_name(state: ViewState, skin: Skin) -> str:
    return step_name(state.lang, skin.step or "token")


def _scores(run: Run, state: ViewState, stages: list[Skin], label: int) -> Drawing:
    names = [skin.step.replace("decoder ", "") or _stage_name(state, skin) for skin in stages]
    places = list(range(len(stages)))
    goto = [{"set": {"step": skin.step or _token_step(run, state)}} for skin in stages]
    common = {"type": "scatter", "mode": "lines+markers", "x": places, "customdata": goto}
    name, colour = escape(class_name(state.lang, run.config.names[label])), class_colour(label)
    own = {
        **common,
        "name": name,
        "y": [skin.score for skin in stages],
        "line": {"color": colour, "width": 2.5},
        "marker": {"color": colour, "size": 8, "line": {"width": 1, "color": HALO_OF_SKIN}},
        "hovertemplate": f"<b>{name}</b> %{{y:.3f}}<extra></extra>",
    }
    other = {
        **common,
        "name": say(state.lang, "onion.other"),
        "y": [skin.other_score for skin in stages],
        "text": ["" if skin.other is None else escape(class_name(state.lang, run.config.names[skin.other])) for skin in stages],
        "line": {"color": NEUTRAL, "width": 1.5, "dash": "dash"},
        "marker": {"color": NEUTRAL, "size": 6, "symbol": "diamond"},
        "hovertemplate": "<b>%{text}</b> %{y:.3f}<extra></extra>",
    }
    threshold = run.threshold(state.threshold)
    return small_chart(
        [other, own],
        210,
        xaxis={"tickvals": places, "ticktext": names, "range": [-0.5, len(places) - 0.5]},
        yaxis={"rangemode": "tozero", "title": {"text": say(state.lang, "score"), "standoff": 4}, "nticks": 5},
        shapes=[line_at(threshold), band(stage_of(run, state))],
        annotations=[name_at(say(state.lang, "threshold"), threshold)],
        uirevision="onion",
    )


def _words(run: Run, state: ViewState, numbers: dict[str, Any], stages: list[Skin], chosen: list[str]) -> dict[str, Any]:
    def text(key: str, **values: Any) -> str:
        return say(state.lang, f"onion.{key}", **values)

    query, token, last = numbers["query"], numbers["token"], stages[-1]
    name = class_name(state.lang, numbers["name"])
    facts = [[say(state.lang, "query"), say(state.lang, "query.object", query=query)]]
    if token is not None:
        place = token_place(run, token)
        where = {"scale": place.scale, "column": place.column + 1, "row": place.row + 1}
        facts.append([text("from"), say(state.lang, "query.token", **where)])
        facts.append([text("rank"), f"{query + 1} / {len(run.trace.selected_tokens):,}"])
    facts += [
        [say(state.lang, "class"), f"{name} {last.score:.2f}"],
        [text("way"), f"{numbers['way']:.1f} px"],
        [text("straight"), f"{numbers['straight']:.1f} px"],
        [text("start"), f"{stages[0].overlap:.2f}"],
    ]
    notes = [*chosen, text("note.skins" if token is not None else "note.no_token")]
    if token is not None and stages[0].score is None:
        notes.append(text("note.objectness", score=f"{float(run.trace.proposal_logits[token, 0].sigmoid()):.3f}"))
    if not run.config.box_refine:
        notes.append(text("note.stay"))
    stage = _stage_name(state, stages[numbers["stage"]])
    notes.append(text("note.points", step=numbers["step"]) if numbers["points"] else text("note.silent", step=numbers["step"]))
    return {
        "facts": facts,
        "notes": notes,
        "caption": text("caption", name=name, query=query, layers=len(stages) - 1, stage=stage),
        "badge": f"{name} {last.score:.2f}",
        "table": _table(run, state, stages, text),
    }


def _table(run: Run, state: ViewState, stages: list[Skin], text: Any) -> dict[str, Any]:
    head = [text("column.stage"), say(state.lang, "score"), text("column.other"), text("column.moved"), text("column.overlap")]
    rows = []
    for skin in stages:
        score = "–" if skin.score is None else f"{skin.score:.3f}"
        other = "–" if skin.other is None else f"{class_name(state.lang, run.config.names[skin.other])} {skin.other_score:.2f}"
        moved = "–" if skin.moved is None else f"{skin.moved:.1f} px"
        cells = [_stage_name(state, skin), score, other, moved, f"{skin.overlap:.2f}"]
        rows.append({"cells": cells, "set": {"step": skin.step or _token_step(run, state)}})
    return {"head": head, "rows": rows}


VIEW = View("onion", drawing, summary, charts=charts, pick=pick, move=move)
