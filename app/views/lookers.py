"""Who looks here? From a point of the photo back to the queries that read it.

The point lies in one cell of every level. A query reads a cell with the weight

    reading = mean over heads of the sum over its points of attention x bilinear coefficient of the cell,

which is exactly the factor with which the value at that cell enters the heads' outputs (their mean). A query's readings of all
cells of all levels sum to 1, less what it reads outside the picture. Levels that are hidden are not counted.
"""

from __future__ import annotations

from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from app.drawing import controls as settings
from app.drawing.canvas import Drawing, canvas, outline
from app.drawing.chart import head_bars
from app.drawing.marks import SHOWN, apart, hoverlabel, tag
from app.i18n import say, short
from app.run import bilinear, choice
from app.run.run import Run
from app.run.state import ViewState
from app.run.step_queries import StepQueries, level_grid, queries_of
from app.theme import RIM, WHITE, clear, scale_colour
from app.views.view import View
from litedetr import AttentionStep

VEIL = 0.5
DRAWN, DRAWN_BOXES = 48, 12
"""Tokens and objects that are drawn, of the readers."""
LISTED, NUMBERED = 12, 5
"""Readers in the table, and how many of them have their rank on the photo."""


def drawing(run: Run, state: ViewState) -> Drawing:
    """The point, its cell on every level, and its readers: cells or boxes as opaque as they read, the best with their rank."""
    shown = _Shown(run, state)
    readers = shown.readers()[: DRAWN if shown.queries.levels is not None else DRAWN_BOXES]
    traces = [_reader(shown, int(row)) for row in readers[::-1]]
    if state.query is not None and shown.queries.levels is None and state.query in shown.readers() and state.query not in readers:
        traces.append(_reader(shown, state.query))
    traces += [_cell(shown, level) for level in range(len(shown.step.scales)) if level in shown.levels]
    traces += _mark(shown)
    ranks = [[_rank(shown, place, int(row))] for place, row in enumerate(readers[:NUMBERED])]
    names = apart(ranks, run.size[1] / SHOWN, NUMBERED)[::-1]
    return canvas(run, traces, veil=VEIL, annotations=names, meta={"panels": [{"x": "x", "y": "y"}]})


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """Who reads the point, and how much.

    ``rows`` and ``readings``: the listed readers' rows in the step and their readings; ``arriving``: (M, L) attention that
    arrives from all queries per head and scale (S1 first), in whole queries; ``usual``: how often the average cell's, by scale.
    """
    shown = _Shown(run, state)
    lang, step = state.lang, shown.step
    readings, arriving = shown.totals, shown.arriving
    readers = shown.readers()
    usual = shown.usual()
    facts = [
        [say(lang, "lookers.readers", step=step.name), f"{np.count_nonzero(readings > 0)} / {len(readings)}"],
        [say(lang, "lookers.total"), say(lang, "lookers.queries", count=short(arriving.sum()))],
    ]
    for level in reversed(shown.levels):
        text = say(lang, "lookers.times", times=short(usual[level]), cell="{} × {}".format(*_pixels(shown, level)))
        facts.append([say(lang, "lookers.on", scale=step.scales[level]), text])
    return {
        "step": step.name,
        "point": list(shown.place),
        "cells": {step.scales[level]: list(shown.cells[level]) for level in shown.levels},
        "rows": readers[:LISTED].tolist(),
        "readings": readings[readers[:LISTED]].tolist(),
        "arriving": arriving[:, ::-1].tolist(),
        "usual": {step.scales[level]: float(usual[level]) for level in shown.levels},
        "facts": facts,
        "notes": shown.notes(),
        "caption": say(lang, "lookers.caption.objects" if step.kind == "decoder" else "lookers.caption", step=step.name),
        "table": {
            "head": [say(lang, key) for key in ("lookers.who", "lookers.reads", "lookers.scale", "head")],
            "rows": [_table_row(shown, int(row)) for row in readers[:LISTED]],
        },
    }


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """Objects or tokens ask: the last step of each kind; further steps are on the rail."""
    steps = run.trace.steps
    ends = [each[-1].name for each in (run.trace.encoder_steps, run.trace.decoder_steps) if each]
    now = _Shown(run, state).step
    last = next((step.name for step in reversed(steps) if (step.kind == "decoder") == (now.kind == "decoder")), now.name)
    kinds = {"decoder": "lookers.by.objects"}
    options = [[name, say(state.lang, kinds.get(run.trace.step(name).kind, "lookers.by.tokens"))] for name in ends]
    return [
        settings.choice("step", say(state.lang, "lookers.by"), last, options),
        settings.one_scale(state, say(state.lang, "lookers.counted"), now.scales),
    ]


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """What arrives at the point per head and scale."""
    return [_arriving_chart(_Shown(run, state))]


def pick(run: Run, state: ViewState, x: float, y: float) -> ViewState:
    """A click asks about that point, whatever lies under it, at the same step."""
    step = choice.choose(run, state).step.name
    return choice.pick_point(run, state.with_(step=step), x, y)


def move(run: Run, state: ViewState, dx: int, dy: int) -> ViewState:
    """An arrow key: to the next cell of the finest scale that is counted."""
    shown = _Shown(run, state)
    level = shown.levels[0]
    height, width = shown.step.spatial_shapes[level]
    column, row = shown.cells[level]
    column, row = min(max(column + dx, 0), width - 1), min(max(row + dy, 0), height - 1)
    cell_width, cell_height = level_grid(run, (height, width))
    return pick(run, state, (column + 0.5) * cell_width / run.size[1], (row + 0.5) * cell_height / run.size[0])


def readings_of(step: AttentionStep, cells: dict[int, tuple[int, int]]) -> np.ndarray:
    """(Q, M, L): how much of each query's attention, per head, the cell (column, row) of each level gets; divided by M."""
    shapes = step.spatial_shapes
    read = bilinear.weighted(step, lambda points, level: bilinear.reading(points, shapes[level], cells[level]), cells)
    return read / read.shape[1]


class _Shown:
    """What a state means in this view.

    Attributes:
        place: the point in the photo's pixels.
        cells: the (column, row) that holds it, per level.
        levels: those that are counted, finest first.
        readings: (Q, M, L), 0 where a level is not counted.
    """

    def __init__(self, run: Run, state: ViewState):
        self.run, self.state = run, state
        self.step = choice.choose(run, state).step
        self.place, self.spot = _place(run, state)
        self.cells = [_cell_at(run, shape, self.place) for shape in self.step.spatial_shapes]
        kept = [level for level, scale in enumerate(self.step.scales) if scale not in state.hidden]
        self.levels = kept or list(range(len(self.step.scales)))
        key = f"lookers {self.step.name} {self.cells} {self.levels}"
        self.readings = run.extras.memo(key, self._read)
        self.queries: StepQueries = queries_of(run, self.step)

    def _read(self) -> np.ndarray:
        return readings_of(self.step, {level: self.cells[level] for level in self.levels})

    @cached_property
    def totals(self) -> np.ndarray:
        """(Q,) each query's reading."""
        return self.readings.sum(axis=(1, 2), dtype=np.float64)

    @property
    def arriving(self) -> np.ndarray:
        """(M, L) from all queries, in whole queries."""
        return self.readings.sum(axis=0, dtype=np.float64)

    def readers(self) -> np.ndarray:
        """Rows of the queries that read the point, most first; equal ones in order."""
        order = np.argsort(-self.totals, kind="stable")
        return order[self.totals[order] > 0]

    def usual(self) -> np.ndarray:
        """(L,) what arrives, over what a cell of the level gets on average: all attention on the level over its cells."""
        heads = self.step.weights.shape[1]
        given = self.step.weights.float().sum(dim=(0, 1, 3)).double().numpy() / heads  # (L,) in whole queries
        cells = np.array([height * width for height, width in self.step.spatial_shapes])
        return self.arriving.sum(axis=0) * cells / np.maximum(given, 1e-12)

    def notes(self) -> list[str]:
        lang = self.state.lang
        notes = [say(lang, "lookers.note.exact"), say(lang, "lookers.note.coarse")]
        if self.spot != "point":
            notes.insert(0, say(lang, f"lookers.note.{self.spot}"))
        if len(self.levels) < len(self.step.scales):
            scales = ", ".join(sorted(self.step.scales[level] for level in self.levels))
            notes.append(say(lang, "lookers.note.some", scales=scales))
        if not len(self.readers()):
            notes.append(say(lang, "lookers.note.nobody", step=self.step.name))
        return notes


def _place(run: Run, state: ViewState) -> tuple[tuple[float, float], str]:
    """The point in the photo's pixels, and what it is: "point", "detection" (its middle) or "middle" (the photo's)."""
    height, width = run.size
    if state.point is not None:
        return (state.point[0] * width, state.point[1] * height), "point"
    shown = run.shown(state.threshold, state.classes)
    if state.query is not None and state.query < run.trace.boxes.shape[1]:
        x, y = run.trace.boxes[-1, state.query, :2].double().clamp(0, 1).tolist()
        return (x * width, y * height), "detection"
    if len(shown):
        x1, y1, x2, y2 = run.detections.boxes[shown[0]].astype(float)
        return ((x1 + x2) / 2, (y1 + y2) / 2), "best"
    return (width / 2, height / 2), "middle"


def _cell_at(run: Run, shape: tuple[int, int], place: tuple[float, float]) -> tuple[int, int]:
    width, height = level_grid(run, shape)
    return min(int(place[0] / width), shape[1] - 1), min(int(place[1] / height), shape[0] - 1)


def _pixels(shown: _Shown, level: int) -> tuple[str, str]:
    width, height = level_grid(shown.run, shown.step.spatial_shapes[level])
    return f"{width:.0f}", f"{height:.0f}"


def _table_row(shown: _Shown, row: int) -> dict[str, Any]:
    reading = shown.readings[row]  # (M, L)
    head, level = int(reading.sum(axis=1).argmax()), int(reading.sum(axis=0).argmax())
    cells = [shown.queries.name(row, shown.state.lang), f"{reading.sum():.1%}", shown.step.scales[level], str(head + 1)]
    return {"cells": cells, "set": _link(shown, row)}


def _link(shown: _Shown, row: int) -> dict[str, str]:
    """An object is chosen and the point stays; with a token one goes on to the token's place."""
    if shown.queries.levels is not None:
        return shown.queries.link(row)
    height, width = shown.run.size
    return {"q": str(row), "at": f"{shown.place[0] / width:.4f},{shown.place[1] / height:.4f}"}


def _reader(shown: _Shown, row: int) -> dict[str, Any]:
    who = shown.queries
    reading, share = float(shown.totals[row]), float(shown.totals[row] / shown.totals.max())
    colour = who.colour(row)
    chosen = who.levels is None and row == shown.state.query
    fill = 0.14 * chosen if who.levels is None else 0.08 + 0.6 * share
    line = 0.35 + 0.65 * share
    return {
        "type": "scatter",
        "mode": "lines",
        **outline(tuple(who.boxes[row])),
        "line": {"color": WHITE if chosen else clear(colour, round(line, 3)), "width": 1 + 3 * share + chosen},
        "fill": "toself",
        "fillcolor": clear(colour, round(fill, 3)),
        "hoveron": "fills",
        "hoverinfo": "text",
        "text": f"<b>{escape(who.name(row, shown.state.lang))}</b><br>{reading:.2%}",
        "name": "reader",
        "meta": {"row": row, "reading": reading, "set": _link(shown, row)},
        "hoverlabel": hoverlabel(colour),
    }


def _rank(shown: _Shown, number: int, row: int) -> dict[str, Any]:
    """The reader's rank, from 1, in the corner of its cell or box."""
    colour, box = shown.queries.colour(row), shown.queries.boxes[row]
    place = {"x": float(box[0]), "y": float(box[1]), "xanchor": "left", "yanchor": "top"}
    return tag(str(number + 1), colour, weight=700, **place)


def _cell(shown: _Shown, level: int) -> dict[str, Any]:
    width, height = level_grid(shown.run, shown.step.spatial_shapes[level])
    column, row = shown.cells[level]
    scale = shown.step.scales[level]
    path = outline((column * width, row * height, (column + 1) * width, (row + 1) * height))
    line = {"color": scale_colour(scale), "width": 1.5, "dash": "dot"}
    return {"type": "scatter", "mode": "lines", **path, "line": line, "hoverinfo": "skip", "name": f"cell {scale}"}


def _mark(shown: _Shown) -> list[dict[str, Any]]:
    common = {"type": "scatter", "mode": "markers", "x": [shown.place[0]], "y": [shown.place[1]], "hoverinfo": "skip"}
    halo = {"symbol": "circle-open-dot", "size": 17, "color": RIM, "line": {"width": 6}}
    mark = {"symbol": "circle-open-dot", "size": 16, "color": WHITE, "line": {"width": 2.5}}
    return [{**common, "marker": halo, "name": "point"}, {**common, "marker": mark, "name": "point"}]


def _arriving_chart(shown: _Shown) -> Drawing:
    lang, step = shown.state.lang, shown.step
    names = [f"{say(lang, 'head')} {head + 1}" for head in range(len(shown.arriving))]
    order = shown.levels[::-1]  # S1 first
    values = shown.arriving[:, order]
    return head_bars(
        values, [step.scales[level] for level in order], names, say(lang, "lookers.chart", step=step.name), "%{x:.4f}"
    )


VIEW = View("lookers", drawing, summary, group="understand", controls=controls, charts=charts, pick=pick, move=move)
