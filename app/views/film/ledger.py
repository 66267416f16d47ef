"""The running ledger: multiply-adds of this model and of the same with the full encoder, and measured time, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from app.drawing.canvas import Drawing
from app.drawing.chart import band, small_chart
from app.i18n import say, step_name
from app.run.run import Run
from app.theme import FULL, GRID, OURS, TIME
from litedetr.cost import Cost, full_encoder, gmacs

HEIGHT = 300


@dataclass(frozen=True)
class Entry:
    """One stage of the run.

    Attributes:
        name: "backbone", "B1 high", …, "selection", "decoder 1", …
        gmacs, full: of this model, and of the same one with the full encoder and plain attention.
        milliseconds: measured in this run; None where it was not.
    """

    name: str
    gmacs: float
    full: float
    milliseconds: float | None


def ledger(run: Run) -> list[Entry]:
    """Every stage in order; the neck counts as backbone, the heads as decoder layers, a layer as much as the next."""
    steps = [step.name for step in run.trace.encoder_steps]
    layers = [step.name for step in run.trace.decoder_steps]
    names = ["backbone", *steps, "selection", *layers]
    ours = _stages(run.cost, len(layers))
    full = _stages(gmacs(full_encoder(run.config), run.trace.geometry.padded), len(layers))
    times = dict(run.trace.milliseconds)
    if "backbone" in times:
        times["backbone"] += times.get("neck", 0.0)
    return [Entry(name, a, b, times.get(name)) for name, a, b in zip(names, ours, full, strict=True)]


def drawing(run: Run, lang: str, present: str) -> Drawing:
    """Cumulative GMACs above, milliseconds of each stage below; the `present` stage is marked, a click on a bar goes there."""
    entries = ledger(run)
    names = [entry.name for entry in entries]
    called = [step_name(lang, name) for name in names]
    places = list(range(len(names)))
    traces = [
        _line(say(lang, "film.full"), FULL, "dash", list(accumulate(entry.full for entry in entries)), entries, called),
        _line(say(lang, "film.ours"), OURS, "solid", list(accumulate(entry.gmacs for entry in entries)), entries, called),
        {
            "type": "bar",
            "name": "ms",
            "x": places,
            "y": [entry.milliseconds for entry in entries],
            "yaxis": "y2",
            "marker": {"color": [OURS if entry.name == present else TIME for entry in entries]},
            "customdata": [_goto(entry.name) for entry in entries],
            "text": called,
            "textposition": "none",
            "hovertemplate": "<b>%{text}</b><br>%{y:.1f} ms<extra></extra>",
            "showlegend": False,
        },
    ]
    small = {"size": 11}
    grid = {"showgrid": True, "gridcolor": GRID, "rangemode": "tozero"}
    return small_chart(
        traces,
        HEIGHT,
        margin={"l": 44, "r": 8, "t": 26, "b": 62},
        bargap=0.25,
        xaxis={
            "tickvals": places,
            "ticktext": called,
            "tickangle": -60,
            "tickfont": {"size": 10},
            "anchor": "y2",
            "range": [-0.6, len(names) - 0.4],
        },
        yaxis={**grid, "domain": [0.44, 1], "title": {"text": "GMACs", "font": small, "standoff": 4}, "nticks": 5},
        yaxis2={**grid, "domain": [0, 0.36], "title": {"text": "ms", "font": small, "standoff": 4}, "nticks": 4},
        shapes=[band(names.index(present))] if present in names else [],
        uirevision="ledger",
    )


def _stages(cost: Cost, layers: int) -> list[float]:
    return [cost.backbone + cost.neck, *cost.steps, cost.selection, *[cost.decoder / max(layers, 1)] * layers]


def _line(name: str, colour: str, dash: str, values: list[float], entries: list[Entry], called: list[str]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(range(len(values))),
        "y": values,
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"color": colour, "size": 5},
        "customdata": [_goto(entry.name) for entry in entries],
        "text": called,
        "hovertemplate": f"<b>%{{text}}</b><br>{name}: %{{y:.3f}} GMACs<extra></extra>",
    }


def _goto(name: str) -> dict[str, Any] | None:
    return None if name == "selection" else {"set": {"step": name}}
