"""The leak meter: which share of the attention lies outside the picture, or on padding.

A sampling point reads up to four cells bilinearly. The part of its footprint beyond the level's border reads zeros: that share of
its attention weight has leaked. Padding tokens hold zeros too. KDA gives both the logit 0, not minus infinity, so they keep a
part of the softmax; plain attention guesses its weights without knowing where the border is. Shares are of all attention (1 per
query and head), so that those of the scales add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from app.drawing import controls as settings
from app.drawing.canvas import Drawing, canvas, outline
from app.drawing.chart import ROW, chart, head_bars, name_axis
from app.drawing.marks import BAR, bar_below, cells, diameters, hoverlabel, sampling_points
from app.i18n import say, step_name
from app.run import bilinear
from app.run.choice import QueryChoice, choose
from app.run.run import Run
from app.run.state import AUTO, ViewState
from app.run.step_queries import StepQueries, level_grid, queries_of
from app.theme import CHOSEN, LIGHT_HALF, NOTHING, NUMBERS, WHITE, scale_colour
from app.views.view import Detectors, Report, View
from litedetr import AttentionStep
from litedetr.positions import level_slices

WORST = 6
"""Queries that are drawn and listed."""
ROOM = 0.2
"""Widest gutter, relative to the photo's longer side, that is opened for points outside."""
VEIL = 0.55
HEAVY = 20.0
"""GMACs of encoder and decoder above which the table of all steps is a job: it takes seconds to make them again."""
_SHARES = "leaks"


@dataclass(frozen=True)
class Leak:
    """What one step loses. Q queries, M heads, L levels (finest first).

    Attributes:
        outside, padding: (Q, M, L) share of each query's and head's attention.
    """

    outside: np.ndarray
    padding: np.ndarray

    @property
    def lost(self) -> np.ndarray:
        """(Q, M, L) outside and on padding."""
        return self.outside + self.padding


def leak_of(run: Run, step: AttentionStep) -> Leak:
    """The leak of one step, kept with the run."""
    return run.extras.memo(_key(step), lambda: _leak(run, step))


def drawing(run: Run, state: ViewState) -> Drawing:
    """The photo with the leak of every token of a scale (or of every object), the worst queries and their points outside."""
    shown = _Shown(run, state)
    traces = [_token_heat(shown)] if shown.level is not None else []
    traces += [_leaking(shown, int(row)) for row in shown.worst[::-1]]
    traces += _points_outside(shown)
    if shown.chosen is not None:
        box = outline(tuple(shown.queries.boxes[shown.chosen.row]))
        traces.append({"type": "scatter", "mode": "lines", **box, "line": {"color": WHITE, "width": 2.5}, "hoverinfo": "skip"})
    plot = canvas(run, traces, veil=VEIL)
    plot["layout"]["xaxis"]["range"], plot["layout"]["yaxis"]["range"] = _ranges(run, traces)
    plot["layout"]["meta"] = {"panels": [{"x": "x", "y": "y"}]}
    plot["layout"]["margin"] = {"l": 0, "r": 0, "t": 0, "b": BAR if shown.level is not None else 0}
    return plot


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """The shares of the step and of the run.

    ``steps``, ``scales`` (S1 first) and ``outside`` (one row per step, one column per scale) are what the table chart shows;
    ``heads`` is the step's share per head and scale; ``padding`` the padding's share per step. Of a heavy model, steps that
    nobody looked at have no numbers (NaN) until the `job` is done.
    """
    shown = _Shown(run, state)
    lang = state.lang
    table, padding = _table(run, shown.head)
    heads = shown.leak.outside.mean(axis=0, dtype=np.float64)[:, ::-1]
    index = run.step_names.index(shown.step.name)
    lost, worst = shown.lost, shown.worst
    here = float(table[index].sum())
    total = float(np.average(table.sum(axis=1), weights=[step.queries for step in run.trace.steps]))
    facts = [
        [say(lang, "leak.here", step=shown.step.name), f"{here:.2%}"],
        [say(lang, "leak.run"), "…" if np.isnan(total) else f"{total:.2%}"],
        [say(lang, "leak.padding", step=shown.step.name), f"{padding[index]:.2%}"],
        [say(lang, "leak.touched"), f"{np.count_nonzero(lost > 1e-6)} / {len(lost)}"],
    ]
    return {
        "step": shown.step.name,
        "steps": list(run.step_names),
        "scales": list(reversed(shown.step.scales)),
        "outside": table.tolist(),
        "padding": padding.tolist(),
        "heads": heads.tolist(),
        "worst": worst.tolist(),
        "facts": facts,
        "notes": _notes(shown, padding),
        "caption": say(lang, "leak.caption" if shown.level is not None else "leak.caption.objects", **shown.words()),
        "table": {
            "head": [say(lang, "leak.query"), say(lang, "leak.lost"), say(lang, "leak.mostly")],
            "rows": [_row(shown, int(row), float(lost[row])) for row in worst],
        },
    }


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """Which head, and whose tokens are coloured."""
    shown = _Shown(run, state)
    found = [settings.head(state.lang, run.config.heads, shown.head)]
    if shown.level is not None:
        here = shown.step.scales[shown.level]
        found.append(settings.scale(say(state.lang, "leak.scale"), here, shown.step.query_scales))
    return found


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """Steps by scales as a table of shares, and the step's heads."""
    shown = _Shown(run, state)
    return [_table_chart(shown), _heads_chart(shown)]


def job(run: Run, state: ViewState) -> str | None:
    """The shares of all steps, where it takes long to make them again."""
    return _SHARES if _heavy(run) else None


def work(run: Run, state: ViewState, detectors: Detectors, report: Report) -> np.ndarray:
    """The shares of every step."""
    return _shares(run, lambda done: report(done / len(run.trace.steps), step_name(state.lang, run.step_names[done])))


class _Shown:
    """What a state means in this view."""

    def __init__(self, run: Run, state: ViewState):
        self.run, self.state = run, state
        chosen = choose(run, state)
        self.step = chosen.step
        named = state.query is not None or state.point is not None
        self.chosen: QueryChoice | None = chosen if named else None
        heads = self.step.weights.shape[1]
        self.head = state.head if state.head is not None and state.head <= heads else None
        self.level = None
        if self.step.kind != "decoder":
            wanted = chosen.scale if state.scale == AUTO and named else state.scale
            asking = self.step.query_scales
            self.level = self.step.scales.index(wanted if wanted in asking else asking[0])
        self.leak = leak_of(run, self.step)

    @cached_property
    def queries(self) -> StepQueries:
        return queries_of(self.run, self.step)

    @cached_property
    def lost(self) -> np.ndarray:
        """(Q,) share of each query's attention that is lost, of the head chosen or of all."""
        return _of_head(self.leak.lost, self.head).sum(axis=1)

    @cached_property
    def worst(self) -> np.ndarray:
        """Rows of the queries that lose most, worst first; none that loses nothing."""
        order = np.argsort(-self.lost, kind="stable")[:WORST]
        return order[self.lost[order] > 1e-6]

    @property
    def rows(self) -> np.ndarray:
        """Rows of the queries whose points are drawn: the worst, and the one that is chosen."""
        return self.worst if self.chosen is None else np.union1d(self.worst, [self.chosen.row])

    def words(self) -> dict[str, str]:
        head = say(self.state.lang, "leak.heads") if self.head is None else f"{say(self.state.lang, 'head')} {self.head}"
        scale = "" if self.level is None else self.step.scales[self.level]
        return {"step": self.step.name, "scale": scale, "heads": head, "worst": str(len(self.worst))}


def _leak(run: Run, step: AttentionStep) -> Leak:
    weights = step.weights.float().numpy()  # (Q, M, L, P)
    locations = step.locations.float().numpy()
    padded = run.trace.padding if run.trace.padding is not None and bool(run.trace.padding.any()) else None
    shapes = step.spatial_shapes
    outside = bilinear.weighted(step, lambda points, level: 1 - bilinear.inside(points, shapes[level]), range(len(shapes)))
    padding = np.zeros_like(outside)
    for level, (shape, tokens) in enumerate(zip(shapes, level_slices(shapes), strict=True)):
        if padded is not None:
            points, given = locations[:, :, level], weights[:, :, level]
            there = padded[tokens].numpy().reshape(1, *shape).astype(np.float32)
            share = bilinear.sample(there, points.reshape(1, -1, 2)).reshape(given.shape)
            padding[:, :, level] = (given * share).sum(axis=-1)
    return Leak(outside, padding)


def _of_head(values: np.ndarray, head: int | None) -> np.ndarray:
    """(Q, M, L) -> (Q, L): one head, or the mean of all."""
    return values.mean(axis=1) if head is None else values[:, head - 1]


def _table(run: Run, head: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(steps, L) shares outside, S1 first, and (steps,) shares on padding; NaN where a heavy run's step is unknown."""
    shares = run.extras.get(_SHARES)
    if shares is None:
        shares = _known_shares(run) if _heavy(run) else run.extras.put(_SHARES, _shares(run))
    outside, padding = np.moveaxis(shares.mean(axis=2) if head is None else shares[:, :, head - 1], 1, 0)
    return outside[:, ::-1], padding.sum(axis=-1)


def _shares(run: Run, begun: Callable[[int], None] = lambda step: None) -> np.ndarray:
    """(steps, 2, M, L): the means over each step's queries, outside and on padding; `begun` hears which step it is at."""
    found = []
    for index, step in enumerate(run.trace.steps):
        begun(index)
        found.append(_means(leak_of(run, step)))
    return np.stack(found)


def _known_shares(run: Run) -> np.ndarray:
    """`_shares` of the steps whose leak is known, one of them at least; NaN of the others."""
    known = [run.extras.get(_key(step)) for step in run.trace.steps]
    means = [None if leak is None else _means(leak) for leak in known]
    unknown = np.full_like(next(mean for mean in means if mean is not None), np.nan)
    return np.stack([unknown if mean is None else mean for mean in means])


def _means(leak: Leak) -> np.ndarray:
    """(2, M, L)"""
    return np.stack([lost.mean(axis=0, dtype=np.float64) for lost in (leak.outside, leak.padding)])


def _heavy(run: Run) -> bool:
    """Whether the steps must be made again, and that takes seconds."""
    return run.trace.replay is not None and run.cost.encoder + run.cost.decoder > HEAVY


def _key(step: AttentionStep) -> str:
    return f"leak {step.name}"


def _notes(shown: _Shown, padding: np.ndarray) -> list[str]:
    lang = shown.state.lang
    keyed = shown.step.query is not None
    notes = [say(lang, "leak.note.kda" if keyed else "leak.note.plain"), say(lang, "leak.note.part")]
    notes.append(say(lang, "leak.note.stretched" if shown.run.trace.padding is None or not padding.any() else "leak.note.padded"))
    if shown.chosen is not None:
        notes = [*shown.chosen.sentences(lang), *notes]
    traces = _points_outside(shown)
    (left, right), (bottom, top) = _ranges(shown.run, traces)
    beyond = sum(int(((t["x"] < left) | (t["x"] > right) | (t["y"] < top) | (t["y"] > bottom)).sum()) for t in traces)
    if beyond:
        notes.append(say(lang, "leak.note.beyond", points=beyond))
    if not len(shown.worst):
        notes.append(say(lang, "leak.note.none", step=shown.step.name))
    return notes


def _row(shown: _Shown, row: int, lost: float) -> dict[str, Any]:
    who = shown.queries
    level = int(_of_head(shown.leak.lost, shown.head)[row].argmax())
    return {"cells": [who.name(row, shown.state.lang), f"{lost:.1%}", shown.step.scales[level]], "set": who.link(row)}


def _token_heat(shown: _Shown) -> dict[str, Any]:
    """The leak of each token of the asking level, on its cell; nothing where the token is padding."""
    run, step = shown.run, shown.step
    shape, tokens = step.spatial_shapes[shown.level], level_slices(step.spatial_shapes)[shown.level]
    lost = shown.lost[tokens.start - step.first_query :][: shape[0] * shape[1]].astype(np.float32)
    if run.trace.padding is not None:
        lost = np.where(run.trace.padding[tokens].numpy(), np.nan, lost)
    return cells(
        (100 * lost).reshape(shape),
        level_grid(run, shape),
        zmin=0,
        zmax=max(100 * float(shown.lost.max()), 1.0),
        colorscale="Viridis",
        opacity=0.62,
        name="leak",
        hovertemplate=f"{step.scales[shown.level]} · %{{z:.2f}}%<extra></extra>",
        colorbar=bar_below(say(shown.state.lang, "leak.unit")),
    )


def _leaking(shown: _Shown, row: int) -> dict[str, Any]:
    who = shown.queries
    colour = who.colour(row)
    text = f"<b>{escape(who.name(row, shown.state.lang))}</b><br>{shown.lost[row]:.1%}"
    return {
        "type": "scatter",
        "mode": "lines",
        **outline(tuple(who.boxes[row])),
        "line": {"color": colour, "width": 2},
        "fill": "toself",
        "fillcolor": NOTHING,
        "hoveron": "fills",
        "hoverinfo": "text",
        "text": text,
        "name": "worst",
        "meta": {"set": who.link(row)},
        "hoverlabel": hoverlabel(colour),
    }


def _points_outside(shown: _Shown) -> list[dict[str, Any]]:
    """Points of `rows` that lie outside the photo, in true position; one trace per scale, none for hidden scales."""
    run, step, rows = shown.run, shown.step, shown.rows
    height, width = run.size
    traces = []
    for level, scale in enumerate(step.scales):
        if scale in shown.state.hidden or not len(rows):
            continue
        heads = slice(None) if shown.head is None else slice(shown.head - 1, shown.head)
        x, y = np.moveaxis(run.to_photo(step.locations[rows, heads, level].float().numpy()), -1, 0)
        weights = step.weights[rows, heads, level].float().numpy()
        out = (x < 0) | (y < 0) | (x > width) | (y > height)
        if not out.any():
            continue
        details = np.stack((np.broadcast_to(rows[:, None, None], x.shape)[out], weights[out]), axis=1)
        traces.append(
            sampling_points(
                scale,
                x[out],
                y[out],
                {"size": diameters(weights[out], 3, 21), "opacity": 0.9},
                customdata=details.astype(np.float32),
                hovertemplate=f"<b>{scale}</b> · {say(shown.state.lang, 'weight')} %{{customdata[1]:.4f}}<extra></extra>",
                hoverlabel=hoverlabel(scale_colour(scale)),
            )
        )
    return traces


def _ranges(run: Run, traces: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Axes wide enough for the points outside, up to `ROOM`; y runs down."""
    height, width = run.size
    room, gutter = ROOM * max(height, width), 0.045 * max(height, width)
    points = [trace for trace in traces if trace.get("mode") == "markers"]
    x = np.concatenate([np.zeros(0), *(trace["x"] for trace in points)])
    y = np.concatenate([np.zeros(0), *(trace["y"] for trace in points)])
    left, top = (max(-room, min(0.0, float(values.min(initial=0)))) for values in (x, y))
    right, bottom = (min(size + room, float(values.max(initial=size))) for values, size in ((x, width), (y, height)))
    return [left - gutter, right + gutter], [bottom + gutter, top - gutter]


def _table_chart(shown: _Shown) -> Drawing:
    run, lang = shown.run, shown.state.lang
    table, _ = _table(run, shown.head)
    scales = list(reversed(shown.step.scales))
    names = list(run.step_names)
    values = 100 * np.concatenate((table, table.sum(axis=1, keepdims=True)), axis=1)
    row = names.index(shown.step.name)
    trace = {
        "type": "heatmap",
        "z": values.astype(np.float32),
        "x": [*scales, "Σ"],
        "y": [step_name(lang, name) for name in names],
        "zmin": 0,
        "colorscale": LIGHT_HALF,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "texttemplate": "%{z:.1f}",
        "textfont": {"size": 11, "color": NUMBERS},
        "customdata": [[{"set": {"step": name}}] * values.shape[1] for name in names],
        "hovertemplate": "<b>%{y}</b> · %{x}<br>%{z:.3f}%<extra></extra>",
    }
    mark = {
        "type": "rect",
        "x0": -0.5,
        "x1": values.shape[1] - 0.5,
        "y0": row - 0.5,
        "y1": row + 0.5,
        "fillcolor": NOTHING,
    }
    title = say(lang, "leak.table", **shown.words())
    shapes = [{**mark, "line": {"color": CHOSEN, "width": 2.5}}]
    xaxis = {"side": "top", "ticks": "", "type": "category"}
    drawing = chart([trace], title, ROW * len(names), shapes=shapes, xaxis=xaxis, yaxis=name_axis())
    drawing["layout"]["margin"] |= {"t": 48, "b": 2}
    return drawing


def _heads_chart(shown: _Shown) -> Drawing:
    step, lang = shown.step, shown.state.lang
    heads = 100 * shown.leak.outside.mean(axis=0, dtype=np.float64)[:, ::-1]  # (M, L), S1 first
    names = [f"{say(lang, 'head')} {head + 1}" for head in range(len(heads))]
    title = say(lang, "leak.heads.chart", step=step.name)
    return head_bars(heads, step.scales[::-1], names, title, "%{x:.3f}%", shown.head, " %")


VIEW = View(
    "leak", drawing, summary, group="understand", controls=controls, charts=charts, job=job, work=work, begins=True
)
