"""The chart of the view `missed`: the nearest queries through the layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.drawing.canvas import Drawing
from app.drawing.chart import line_at, name_at, small_chart
from app.i18n import say
from app.run.run import Run
from app.run.state import ViewState
from app.theme import CUT, FOLLOWED, GRID
from app.views.missed import words as missed_words
from app.views.missed.drawn_box import NEAR, DrawnBox, Proposal, nearest


def lives(run: Run, state: ViewState, found: DrawnBox) -> Drawing:
    """Three rows over the stages: score with the threshold, overlap with `NEAR`, rank with the cut."""
    tokens, queries = nearest(found)
    stages = list(range(len(found.scores)))
    names = [say(state.lang, "missed.start"), *[step.name.replace("decoder ", "") for step in run.trace.decoder_steps]]
    traces = []
    for place, query in enumerate(queries):
        colour = FOLLOWED[place % len(FOLLOWED)]
        rows = (
            found.scores[:, query],
            found.overlaps[:, query],
            np.where(found.ranks[:, query] > 0, found.ranks[:, query], np.nan),
        )
        for row, values in enumerate(rows):
            style = {"line": {"color": colour, "width": 3 if place == 0 else 1.8}, "marker": {"color": colour, "size": 6}}
            axes = {"yaxis": f"y{row + 1 if row else ''}", "showlegend": row == 0, "legendgroup": str(query)}
            y = [None if value != value else float(value) for value in values]
            goto = [{"set": {"q": str(query)}}] * len(stages)
            text = [missed_words.life(state, found, query, stage) for stage in stages]
            hover = {"customdata": goto, "text": text, "hovertemplate": "%{text}<extra></extra>"}
            traces.append(
                {"type": "scatter", "mode": "lines+markers", "name": f"q{query}", "x": stages, "y": y, **style, **axes, **hover}
            )
    traces += _cut_marks(run, state, [found.proposal(token) for token in tokens])
    grid = {"showgrid": True, "gridcolor": GRID}
    logarithms = np.log10([max(2, int(found.ranks.max()), *[found.proposal(token).rank for token in tokens], found.queries)])
    shapes = [line_at(found.threshold), line_at(NEAR, "y2")]
    labels = [name_at(say(state.lang, "threshold"), found.threshold)]
    if found.token_ranks is not None:
        shapes.append(line_at(found.queries, "y3"))
        labels.append(name_at(say(state.lang, "missed.cut"), float(np.log10(found.queries)), "y3"))
    heights = ([0.7, 1], [0.36, 0.64], [0, 0.3])
    titles = (say(state.lang, "score"), "IoU", say(state.lang, "missed.rank"))
    rows = [
        {**grid, "domain": domain, "title": {"text": title, "font": {"size": 11}}, "nticks": 4}
        for domain, title in zip(heights, titles, strict=True)
    ]
    return small_chart(
        traces,
        404,
        margin={"l": 48, "r": 8, "t": 54, "b": 26},
        xaxis={"tickvals": stages, "ticktext": names, "range": [-0.4, len(stages) - 0.6], "anchor": "y3"},
        yaxis={**rows[0], "rangemode": "tozero"},
        yaxis2={**rows[1], "range": [0, 1.04]},
        yaxis3={**rows[2], "type": "log", "range": [float(logarithms.max()) + 0.15, -0.1], "dtick": 1},
        shapes=shapes,
        annotations=labels,
        uirevision="missed",
    )


def _cut_marks(run: Run, state: ViewState, proposals: list[Proposal]) -> list[dict[str, Any]]:
    """Tokens that the cut left out, at the first stage, beyond which they did not come."""
    cut = [proposal for proposal in proposals if proposal.query is None]
    if not cut:
        return []
    marker = {"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": CUT}}
    common = {"type": "scatter", "mode": "markers", "x": [0] * len(cut), "marker": marker, "name": say(state.lang, "missed.cut")}
    common["customdata"] = [{"set": missed_words.link(run, proposal)} for proposal in cut]
    rows = ([p.score if p.label is not None else None for p in cut], [p.overlap for p in cut], [p.rank for p in cut])
    words = "%{y}<extra></extra>"
    return [
        {**common, "y": y, "yaxis": f"y{row + 1 if row else ''}", "showlegend": row == 0, "hovertemplate": words}
        for row, y in enumerate(rows)
    ]
