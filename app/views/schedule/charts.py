"""The small figures beside a schedule: multiply-adds layer by layer, and how they depend on H and A."""

from __future__ import annotations

from typing import Any

from app.drawing.canvas import Drawing
from app.drawing.chart import chart, name_axis, value_axis
from app.i18n import say, step_name
from app.theme import CHANGED, FULL, LIGHT_HALF, NUMBERS, OURS
from litedetr import EncoderSchedule
from litedetr.cost import Cost


def gmacs_chart(plan: EncoderSchedule, cost: Cost, full: Cost, lang: str) -> Drawing:
    """Bars of this schedule, a line of the full encoder."""
    names = [step_name(lang, step.name) for step in plan.steps()]
    hover = "<b>%{x}</b><br>%{y:.3f} GMACs<extra></extra>"
    bars = {"type": "bar", "name": say(lang, "schedule.chart.plan"), "x": names, "y": list(cost.steps), "marker": {"color": OURS}}
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": say(lang, "schedule.chart.full"),
        "x": names,
        "y": list(full.steps),
        "line": {"color": FULL, "width": 2, "dash": "dash"},
        "marker": {"size": 5},
    }
    axes = {"xaxis": {"fixedrange": True, "tickangle": -60, "tickfont": {"size": 10}}, "yaxis": value_axis(rangemode="tozero")}
    drawing = chart(
        [{**bars, "hovertemplate": hover}, {**line, "hovertemplate": hover}],
        say(lang, "schedule.chart.layers"),
        150,
        legend=True,
        **axes,
    )
    drawing["layout"]["margin"] |= {"l": 44, "b": 62}
    drawing["layout"]["height"] += 38
    return drawing


def plans_chart(plans: list[list[EncoderSchedule]], shares: list[list[float]], plan: EncoderSchedule, lang: str) -> Drawing:
    """A cell per H (rows) and A (columns), as many layers in all; a click takes its schedule."""
    rows = [f"H{row[0].high}" for row in plans]
    columns = [f"A{column.updates}" for column in plans[0]]
    per_cent = [[100 * share for share in row] for row in shares]
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": per_cent,
        "zmin": 0,
        "zmax": max(100.0, *map(max, per_cent)),
        "colorscale": LIGHT_HALF,
        "textfont": {"color": NUMBERS},
        "showscale": False,
        "text": [[f"{value:.0f}" for value in row] for row in per_cent],
        "texttemplate": "%{text}",
        "customdata": [[{"set": {"plan": str(cell)}} for cell in row] for row in plans],
        "hovertext": [
            [say(lang, "schedule.chart.cell", plan=cell, share=f"{value:.1f}") for cell, value in zip(*pair, strict=True)]
            for pair in zip(plans, per_cent, strict=True)
        ],
        "hoverinfo": "text",
        "xgap": 2,
        "ygap": 2,
    }
    layers = plan.updates * plan.blocks
    title = say(lang, "schedule.chart.shares", layers=layers)
    drawing = chart([heat], title, 30 * len(rows), xaxis={"fixedrange": True, "side": "bottom"}, yaxis=name_axis())
    drawing["layout"]["margin"] |= {"l": 36}
    if plan.high <= len(rows) and f"A{plan.updates}" in columns:
        x, y = columns.index(f"A{plan.updates}"), plan.high - 1
        frame = {"type": "rect", "x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
        drawing["layout"]["shapes"] = [{**frame, "line": {"color": CHANGED, "width": 3}}]
    return drawing
