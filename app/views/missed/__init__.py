"""Why was this missed? From a box that the visitor draws to the tokens and queries near it, and where their score died."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from app.drawing.canvas import Drawing, canvas, outline, outlines
from app.drawing.marks import SHOWN, apart, hoverlabel
from app.i18n import class_name, say
from app.run.run import Run
from app.run.state import ViewState
from app.theme import BLACK, CUT, FOLLOWED, RIM, WHITE
from app.views.missed import chart as missed_chart
from app.views.missed import words as missed_words
from app.views.missed.drawn_box import NEAR, DrawnBox, Proposal, drawn_box, nearest
from app.views.view import View

VEIL = 0.4
STEP = 0.062
"""Between the ranks written beside the box, relative to the photo's longer side."""


def drawing(run: Run, state: ViewState) -> Drawing:
    """The drawn box, what the nearest tokens proposed with their ranks, and the boxes of the queries that ever were near."""
    found = drawn_box(run, state)
    if found is None:
        drawn = canvas(run, [outlines(run, state, 0.7, 1.5)], veil=0.2)
    else:
        (tokens, queries), stage = nearest(found), stage_of(run, state)
        queries = [query for query in queries if query == queries[0] or found.overlaps[:, query].max() >= NEAR]
        proposals = [found.proposal(token) for token in tokens]
        proposed = [trace for proposal in proposals for trace in _proposal(run, state, proposal)]
        traces = proposed[::2]
        traces += [trace for place, query in enumerate(queries) for trace in _query(state, found, query, stage, place)][::-1]
        traces += [*_drawn(state, found), *proposed[1::2]]
        labels = [*_names(state, found, queries, stage), *_ranks(run, state, found, proposals)]
        drawn = canvas(run, traces, veil=VEIL, annotations=labels)
    drawn["layout"]["meta"] = {"panels": [{"x": "x", "y": "y"}]}
    return drawn


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """Score, overlap and rank of the nearest queries, stage by stage, and the tokens that were cut."""
    found = drawn_box(run, state)
    return [] if found is None else [missed_chart.lives(run, state, found)]


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """Which class is asked for."""
    names = [class_name(state.lang, name) for name in run.config.names]
    options = [["", say(state.lang, "missed.any")], *[[str(label), names[label]] for label in np.argsort(names).tolist()]]
    value = ",".join(map(str, state.classes))
    known = [label for label in state.classes if label < len(names)]
    if len(state.classes) > 1:
        options.append([value, ", ".join(names[label] for label in known)])
    return [{"key": "cls", "kind": "choice", "label": say(state.lang, "class"), "value": value, "options": options}]


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """The verdict with its numbers; the nearest tokens and queries."""
    found, stage = drawn_box(run, state), stage_of(run, state)
    step = run.trace.decoder_steps[stage - 1].name if stage else state.step
    if found is None:
        return {"box": None, "verdict": None, "step": step, **missed_words.hint(state)}
    tokens, queries = nearest(found)
    verdict, values = found.verdict
    numbers = {
        "box": list(found.drawn),
        "step": step,
        "verdict": verdict,
        "values": values,
        "threshold": found.threshold,
        "cut": None if found.token_ranks is None else found.queries,
        "proposals": [vars(found.proposal(token)) for token in tokens],
        "queries": [_numbers(found, query) for query in queries],
        "near_tokens": None if found.token_ranks is None else int((found.token_overlaps >= NEAR).sum()),
        "near_queries": [int(count) for count in (found.overlaps >= NEAR).sum(1)],
    }
    return numbers | missed_words.words(run, state, found, tokens, queries)


def stage_of(run: Run, state: ViewState) -> int:
    """After which layer the queries' boxes are shown: the state's, else the last; 0, before the decoder, in an encoder step."""
    layers = [step.name for step in run.trace.decoder_steps]
    if state.step in layers:
        return layers.index(state.step) + 1
    return 0 if state.step in run.step_names else len(layers)


def _numbers(found: DrawnBox, query: int) -> dict[str, Any]:
    rows = {"overlaps": found.overlaps, "scores": found.scores, "ranks": found.ranks, "labels": found.labels}
    lists = {key: [None if value != value else value for value in values[:, query].tolist()] for key, values in rows.items()}
    return {"query": query, **lists}


def _drawn(state: ViewState, found: DrawnBox) -> list[dict[str, Any]]:
    path = {"type": "scatter", "mode": "lines", **outline(found.drawn), "hoverinfo": "skip", "name": "drawn"}
    return [{**path, "line": {"color": RIM, "width": 6}}, {**path, "line": {"color": WHITE, "width": 3, "dash": "dash"}}]


def _proposal(run: Run, state: ViewState, proposal: Proposal) -> list[dict[str, Any]]:
    """The proposed box, thin, and its token's place."""
    chosen = proposal.query is not None
    colour = WHITE if chosen else CUT
    key = "missed.hover.chosen" if chosen else "missed.hover.cut"
    values = {
        "rank": f"{proposal.rank:,}",
        "scale": proposal.scale,
        "overlap": f"{proposal.overlap:.2f}",
        "query": proposal.query,
    }
    text = say(state.lang, key, **values, score=f"{proposal.score:.3f}")
    meta = {"set": missed_words.link(run, proposal), "token": proposal.token}
    hover = hoverlabel(colour)
    common = {"type": "scatter", "hoverinfo": "text", "text": text, "meta": meta, "hoverlabel": hover}
    box = {**common, "mode": "lines", **outline(proposal.box), "line": {"color": colour, "width": 1, "dash": "dot"}}
    mark = {"symbol": "square" if chosen else "x-thin", "size": 8, "color": colour, "line": {"width": 2, "color": colour}}
    if chosen:
        mark["line"] = {"width": 1, "color": RIM}
    place = {"x": [proposal.centre[0]], "y": [proposal.centre[1]]}
    return [{**box, "name": "proposal"}, {**common, "mode": "markers", **place, "marker": mark, "name": "token"}]


def _query(state: ViewState, found: DrawnBox, query: int, stage: int, place: int) -> list[dict[str, Any]]:
    colour = FOLLOWED[place % len(FOLLOWED)]
    text = missed_words.life(state, found, query, stage)
    path = {"type": "scatter", "mode": "lines", **outline(found.boxes[stage, query])}
    width = 4 if query == state.query or (place == 0 and state.query is None) else 2.5
    seen = {"line": {"color": colour, "width": width}, "hoverinfo": "text", "text": text, "name": text}
    halo = {"line": {"color": RIM, "width": width + 2}, "hoverinfo": "skip", "name": "halo"}
    return [{**path, **seen, "meta": {"set": {"q": str(query)}, "query": query}}, {**path, **halo}]


def _ranks(run: Run, state: ViewState, found: DrawnBox, proposals: list[Proposal]) -> list[dict[str, Any]]:
    """Ranks beside the drawn box, where there is room, each with a line to its token."""
    height, width = run.size
    x1, y1, x2, y2 = found.drawn
    gap, step = 0.05 * width, STEP * max(run.size)
    right = width - x2 >= x1
    x = min(x2 + gap, 0.9 * width) if right else max(x1 - gap, 0.1 * width)
    top = (y1 + y2) / 2 - step * (len(proposals) - 1) / 2
    top = min(max(top, step), height - step * len(proposals))
    labels = []
    for place, proposal in enumerate(sorted(proposals, key=lambda proposal: proposal.centre[1])):
        chosen = proposal.query is not None
        word = "" if chosen else f" · {say(state.lang, 'missed.cut')}"
        colours = {"bgcolor": WHITE if chosen else RIM, "font": {"size": 11, "color": BLACK if chosen else WHITE}}
        tail = {"axref": "x", "ayref": "y", "ax": x, "ay": top + place * step, "xanchor": "left" if right else "right"}
        arrow = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": WHITE if chosen else CUT}
        text = f"#{proposal.rank:,} {proposal.scale}{word}"
        centre = {"x": proposal.centre[0], "y": proposal.centre[1]}
        labels.append({**centre, **tail, **arrow, **colours, "text": text, "borderpad": 1, "captureevents": False})
    return labels


def _names(state: ViewState, found: DrawnBox, queries: list[int], stage: int) -> list[dict[str, Any]]:
    """Query and score at a corner of its box, each query at another one."""
    labels = []
    for place, query in enumerate(queries[:4]):
        x1, y1, x2, y2 = found.boxes[stage, query].tolist()
        score = found.scores[stage, query]
        called = class_name(state.lang, found.run.config.names[found.labels[stage, query]])
        text = f"q{query}" if np.isnan(score) else f"q{query} {escape(called)} {score:.2f}"
        leftmost, above = place % 2 == 0, place < 2
        corner = {"x": x1 if leftmost else x2, "y": y1 if above else y2}
        anchors = {"xanchor": "left" if leftmost else "right", "yanchor": "bottom" if above else "top"}
        if above and y1 < 0.05 * found.run.size[0]:
            anchors["yanchor"] = "top"
        if not above and y2 > 0.95 * found.run.size[0]:
            anchors["yanchor"] = "bottom"
        look = {"bgcolor": FOLLOWED[place], "font": {"size": 11, "color": BLACK, "weight": 600}, "borderpad": 1}
        labels.append([{**corner, **anchors, **look, "text": text, "showarrow": False, "captureevents": False}])
    return apart(labels, 2 * found.run.size[1] / SHOWN, len(labels))  # on a phone, too; the others by pointing at their boxes


VIEW = View("missed", drawing, summary, group="understand", controls=controls, charts=charts, box=True, own=True)
