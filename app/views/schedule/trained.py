"""The ablation of `litedetr.training.study`: what other schedules cost in accuracy, measured on one small model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from app.drawing.canvas import Drawing
from app.drawing.chart import chart, line_at, name_axis, value_axis
from app.i18n import say
from app.theme import STUDY_MARKS, WHITE
from litedetr import EncoderSchedule

STUDY = Path(__file__).parents[3] / "assets" / "study.json"
ROW = 30


@cache
def study() -> dict[str, Any] | None:
    """The figures that are shipped; None where there are none."""
    return json.loads(STUDY.read_text(encoding="utf-8")) if STUDY.is_file() else None


def study_chart(found: dict[str, Any], plan: EncoderSchedule, lang: str) -> Drawing:
    """A row per encoder, a mark per training and figure; a click takes the row's schedule, the plan's row is bold."""
    rows = [row for row in found["variants"] if row["runs"]]
    names = [_name(row, plan, lang) for row in rows]
    base = mean(run["AP"] for run in rows[0]["runs"])
    sure = [(name, row["difference"]) for name, row in list(zip(names, rows, strict=True))[1:] if "difference" in row]
    traces = [_interval(name, less, base) for name, less in sure]
    for figure, (colour, symbol) in STUDY_MARKS.items():
        marks = [(name, row, run) for name, row in zip(names, rows, strict=True) for run in row["runs"]]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": say(lang, f"schedule.study.{figure}"),
                "x": [run[figure] for _, _, run in marks],
                "y": [name for name, _, _ in marks],
                "marker": {"size": 11, "color": colour, "symbol": symbol, "opacity": 0.85, "line": {"color": WHITE, "width": 1}},
                "customdata": [{"set": {"plan": row["schedule"]}} for _, row, _ in marks],
                "hovertext": [_words(row, run, lang) for _, row, run in marks],
                "hoverinfo": "text",
                "cliponaxis": False,
            }
        )
    title = say(lang, "schedule.study.title", photos=f"{found['photos']:,}")
    most = max(value for trace in traces for value in trace["x"])
    axes = {"xaxis": value_axis(range=[-0.06 * most, 1.1 * most]), "yaxis": name_axis()}
    drawing = chart(traces, title, ROW * len(rows), legend=True, **axes)
    drawing["layout"]["margin"] |= {"l": 132}
    drawing["layout"]["shapes"] = [line_at(base) | {"xref": "x", "yref": "paper", "x0": base, "x1": base, "y0": 0, "y1": 1}]
    return drawing


def _interval(name: str, less: dict[str, float], base: float) -> dict[str, Any]:
    """A line behind a row's marks: where 95 % of its distance from the full encoder lie when the photographs are drawn anew.

    The view's note says so: a legend of three has no room beside names of schedules.
    """
    return {
        "type": "scatter",
        "mode": "lines",
        "showlegend": False,
        "x": [base + less["low"], base + less["high"]],
        "y": [name, name],
        "line": {"color": STUDY_MARKS["AP"][0], "width": 2},
        "opacity": 0.5,
        "hoverinfo": "skip",
    }


def _name(row: dict[str, Any], plan: EncoderSchedule, lang: str) -> str:
    schedule = EncoderSchedule.parse(row["schedule"])
    name = say(lang, "schedule.chart.full") if schedule.is_full else row["schedule"]
    name = name if row["key_aware"] else say(lang, "schedule.study.plain", plan=name)
    return f"<b>{name}</b>" if schedule == plan and row["key_aware"] else name


def _words(row: dict[str, Any], run: dict[str, Any], lang: str) -> str:
    share = f"{row['encoder_gmacs']:.2f} GMACs" + (f", {row['encoder_ms']:.0f} ms" if "encoder_ms" in row else "")
    names = {"plan": row["schedule"], "seed": run["seed"], "cost": share}
    words = say(lang, "schedule.study.run", **names, ap=run["AP"], ap50=run["AP50"], small=run["AP_small"])
    less = row.get("difference")
    if less and any(less.values()):  # the first row is compared with itself
        words += "<br>" + say(lang, "schedule.study.difference", less=less["AP"], low=less["low"], high=less["high"])
    return words
