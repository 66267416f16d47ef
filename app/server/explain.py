"""Where one query of one step looked, as plain data for programs: sampling points and weights of every scale and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.run.choice import choose, detection_of
from app.run.run import Run
from app.run.state import AUTO, ViewState


class ExplainError(ValueError):
    """The run has nothing of this name or at this place; the message says what it has."""


def explain(
    run: Run,
    x: float | None = None,
    y: float | None = None,
    detection: float | None = None,
    step: str | None = AUTO,
    scale: str | None = AUTO,
) -> dict[str, Any]:
    """JSON-ready: which query asked, and its sampling points with their weights.

    Args:
        x, y: a point in the photo's pixels, to ask what this place looked at.
        detection: index of a detection, best first as `Detections.to_dict` lists them, to ask what made it. Without point and
            detection it is the best one, or the photo's centre where none reaches the model's threshold.
        step: an encoder update ("B1 high") or a decoder layer ("decoder 3"); "auto" for the last that fits the choice.
        scale: which scale's token asks in the encoder, "S1" (coarsest) …; "auto" for what fits.

    Returns:
        ``kind``, "token" or "object", and where it asked: ``reference`` and ``box`` (the token's cell, or the box that the object
        had then). ``detection``: what came of it, None for nothing. ``scales``, S1 first: the ``points`` [head][point] as x, y in
        the photo's pixels, beyond its borders too; their ``weights`` [head][point], which sum to 1 per head over all scales; the
        scale's ``share`` of all heads' attention. ``rebuild_error``: how far the attention's output is from the one that these
        points alone give again.

    Raises:
        ExplainError: there is no such detection, step or scale, or the point is not in the photo.
    """
    state = _state(run, x, y, detection, step or AUTO, scale or AUTO)
    chosen = choose(run, state)
    points = run.to_photo(chosen.locations)  # (M, L, P, 2)
    weights = chosen.weights.astype(np.float64)  # (M, L, P)
    height, width = run.size
    found = {
        name: {
            "share": round(float(weights[:, level].sum() / len(weights)), 6),
            "points": np.round(points[:, level], 2).tolist(),
            "weights": np.round(weights[:, level], 6).tolist(),
        }
        for level, name in reversed(list(enumerate(chosen.step.scales)))
    }
    return {
        "width": int(width),
        "height": int(height),
        "model": run.model,
        "steps": list(run.step_names),
        "step": chosen.step.name,
        "kind": chosen.kind,
        "scale": chosen.scale,
        "query": chosen.query,
        "detection": _detection(run, chosen.query),
        "reference": [round(value, 2) for value in chosen.reference],
        "box": [round(value, 2) for value in chosen.box],
        "scales": found,
        "rebuild_error": chosen.step.rebuild_error([chosen.row]),
        "notes": chosen.sentences("en"),
    }


def _state(run: Run, x: float | None, y: float | None, detection: float | None, step: str, scale: str) -> ViewState:
    """The choice as the page would hold it; what the page would overlook is an error here."""
    state = ViewState(
        step=_one_of("step", step, run.step_names), scale=_one_of("scale", scale, sorted(run.trace.steps[0].scales))
    )
    pointed = x is not None or y is not None
    if pointed and detection is not None:
        raise ExplainError("expected a point or a detection, got both: leave one of them out.")
    if pointed:
        return state.with_(point=_place(run, x, y))
    return state if detection is None else state.with_(query=_query(run, detection))


def _detection(run: Run, query: int | None) -> dict[str, Any] | None:
    """The best detection of a query, as `Detections.to_dict` has it, and its place there."""
    index = detection_of(run, query)
    return None if index is None else {"index": index, **run.detections[[index]].to_dict()["detections"][0]}


def _one_of(what: str, name: str, known: Sequence[str]) -> str:
    if name != AUTO and name not in known:
        raise ExplainError(f'expected the {what} "auto" or one of {", ".join(known)}, got {name[:40]!r}: choose one of them.')
    return name


def _place(run: Run, x: float | None, y: float | None) -> tuple[float, float]:
    """The photo's pixels -> [0, 1] of the photo."""
    height, width = run.size
    if x is None or y is None or not (0 <= x <= width and 0 <= y <= height):
        got = ", ".join("nothing" if value is None else f"{value:g}" for value in (x, y))
        raise ExplainError(
            f"expected x from 0 to {width} and y from 0 to {height}, the photo's pixels, got {got}: choose a point in the photo."
        )
    return x / width, y / height


def _query(run: Run, detection: float) -> int:
    """Place of a detection -> the decoder query that it came from."""
    count = len(run.detections)
    if detection not in range(count):
        raise ExplainError(
            f"expected a detection from 0 to {count - 1}, as /detect lists them, got {detection:g}: choose one of them."
        )
    return int(run.detections.queries[int(detection)])
