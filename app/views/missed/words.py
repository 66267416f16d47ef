"""The sentences, facts and table of the view `missed`."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.i18n import class_name, say
from app.run.run import Run
from app.run.state import ViewState
from app.views.missed.drawn_box import NEAR, DrawnBox, Proposal


def hint(state: ViewState) -> dict[str, Any]:
    """What to do where no box is drawn."""
    text = say(state.lang, "missed.hint", button=say(state.lang, "box.mode"))
    return {"facts": [], "notes": [text], "caption": say(state.lang, "missed.caption.none")}


def words(run: Run, state: ViewState, found: DrawnBox, tokens: list[int], queries: list[int]) -> dict[str, Any]:
    """What the inspector shows: the verdict as a sentence first."""
    kind, values = found.verdict
    two_stage = found.token_ranks is not None
    sentence = say(state.lang, f"missed.verdict.{kind}", **_filled(state, found, kind, values))
    notes = [say(state.lang, "missed.rules" if two_stage else "missed.rules.one_stage", near=f"{NEAR:.1f}")]
    if not two_stage:
        notes.append(say(state.lang, "missed.note.one_stage"))
    elif not run.tokens_tell_classes:
        notes.append(say(state.lang, "missed.note.objectness"))
    elif found.classes:
        notes.append(say(state.lang, "missed.note.ranked"))
    return {
        "facts": _facts(state, found, tokens, queries),
        "notes": notes,
        "caption": say(state.lang, "missed.caption" if two_stage else "missed.caption.one_stage"),
        "answer": {
            "title": say(state.lang, f"missed.badge.{kind}"),
            "text": sentence,
            "tone": {"found": "good", "otherwise": "warn"}.get(kind, "bad"),
        },
        "table": _table(run, state, found, tokens, queries),
    }


def life(state: ViewState, found: DrawnBox, query: int, stage: int) -> str:
    """One query at one stage, in a few words."""
    score = found.scores[stage, query]
    where = {"query": query, "stage": stage_name(state, found, stage), "overlap": f"{found.overlaps[stage, query]:.2f}"}
    if np.isnan(score):
        return say(state.lang, "missed.life.start", **where)
    name = found.run.config.names[found.labels[stage, query]]
    return say(state.lang, "missed.life", **where, name=name, score=f"{score:.3f}", rank=f"{found.ranks[stage, query]:,}")


def link(run: Run, proposal: Proposal) -> dict[str, str]:
    """State parameters that select what the token became, or the token itself."""
    if proposal.query is not None:
        return {"q": str(proposal.query), "at": "", "scale": ""}
    height, width = run.size
    x, y = (min(max(value, 0.0), 1.0) for value in (proposal.centre[0] / width, proposal.centre[1] / height))
    return {"q": "", "at": f"{x:.4f},{y:.4f}", "scale": proposal.scale}


def stage_name(state: ViewState, found: DrawnBox, stage: int) -> str:
    """ "token" (where there are tokens), "start", or the decoder layer's name."""
    if stage:
        return found.run.trace.decoder_steps[stage - 1].name
    return say(state.lang, "missed.start" if found.token_ranks is None else "onion.token")


def _filled(state: ViewState, found: DrawnBox, kind: str, values: dict[str, Any]) -> dict[str, str]:
    """The verdict's numbers as they are written."""
    texts = {key: f"{value:.3f}" if isinstance(value, float) else str(value) for key, value in values.items()}
    if kind in ("fell", "left"):
        texts["next"] = stage_name(state, found, values["stage"] + 1)
    if "stage" in values:
        texts["stage"] = stage_name(state, found, values["stage"])
    for key in ("rank", "tokens", "count"):
        if key in values:
            texts[key] = f"{values[key]:,}"
    return texts


def _facts(state: ViewState, found: DrawnBox, tokens: list[int], queries: list[int]) -> list[list[str]]:
    def text(key: str, **values: Any) -> str:
        return say(state.lang, f"missed.{key}", **values)

    x1, y1, x2, y2 = found.drawn
    names = [class_name(state.lang, name) for name in found.run.config.names]
    wanted = ", ".join(names[label] for label in found.classes) or text("any")
    facts = [
        [text("fact.box"), f"{x2 - x1:.0f} × {y2 - y1:.0f} px"],
        [say(state.lang, "class"), wanted],
        [say(state.lang, "threshold"), f"{found.threshold:.2f}"],
    ]
    if found.token_ranks is not None:
        near = int((found.token_overlaps >= NEAR).sum())
        chosen = int(((found.token_overlaps >= NEAR) & (found.token_ranks <= found.queries)).sum())
        facts.append([text("fact.cut"), f"{found.queries:,} / {len(found.token_ranks):,}"])
        facts.append([text("fact.tokens", near=NEAR), f"{near:,}"])
        facts.append([text("fact.chosen"), f"{chosen:,}"])
    facts.append([text("fact.queries", near=NEAR), f"{int((found.overlaps[-1] >= NEAR).sum()):,}"])
    if tokens:
        best = max(tokens, key=lambda token: found.token_overlaps[token])
        facts.append([text("fact.best_token"), f"{found.token_overlaps[best]:.2f}"])
    if queries:
        facts.append([text("fact.best_query"), f"{found.overlaps[-1].max():.2f}"])
    return facts


def _table(run: Run, state: ViewState, found: DrawnBox, tokens: list[int], queries: list[int]) -> dict[str, Any]:
    """Queries, nearest at the end first, then the tokens that became none of them."""
    head = [say(state.lang, f"missed.column.{key}") for key in ("rank", "who", "overlap", "score", "end")]
    rows = []
    for query in queries:
        overlaps, scores = found.overlaps[[0, -1], query], found.scores[[0, -1], query]
        token = None if run.trace.selected_tokens is None else found.proposal(int(run.trace.selected_tokens[query]))
        who = f"q{query}" if token is None else f"q{query} {token.scale}"
        cells = [
            "–" if token is None else f"#{token.rank:,}",
            who,
            _arrow(overlaps),
            _arrow(scores),
            _ending(state, found, query),
        ]
        rows.append({"cells": cells, "set": {"q": str(query), "at": "", "scale": ""}})
    for token in tokens:
        proposal = found.proposal(token)
        if proposal.query in queries:
            continue
        if proposal.query is not None:
            overlaps, scores = found.overlaps[[0, -1], proposal.query], found.scores[[0, -1], proposal.query]
            ending, who = _ending(state, found, proposal.query), f"q{proposal.query} {proposal.scale}"
            cells = [f"#{proposal.rank:,}", who, _arrow(overlaps), _arrow(scores), ending]
        else:
            score = f"{proposal.score:.2f}"
            cells = [f"#{proposal.rank:,}", proposal.scale, f"{proposal.overlap:.2f}", score, say(state.lang, "missed.cut")]
        rows.append({"cells": cells, "set": link(run, proposal)})
    return {"head": head, "rows": rows}


def _arrow(values: np.ndarray) -> str:
    first, last = ("–" if np.isnan(value) else f"{value:.2f}" for value in values)
    return f"{first} → {last}"


def _ending(state: ViewState, found: DrawnBox, query: int) -> str:
    """Of a query: its box ended elsewhere, below the threshold, or above it."""
    if found.overlaps[-1, query] < NEAR:
        return say(state.lang, "missed.end.elsewhere")
    return say(state.lang, "missed.end.shown" if found.scores[-1, query] >= found.threshold else "missed.end.weak")
