"""Look-ups in a finished run: what the page asks while a visitor clicks. They read arrays in memory and never run a model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from app.drawing.canvas import Drawing
from app.engine.store import ExpiredRun, RunStore
from app.engine.time_limit import Deadline, TooSlow, Watch
from app.i18n import say
from app.run.rail import stops
from app.run.run import Run
from app.run.state import ViewState
from app.settings import number
from app.theme import class_colour
from app.views import VIEWS, view_of

log = logging.getLogger(__name__)

Answer = dict[str, Any]
LONGEST = number("LOOK_SECONDS", 20)
"""Seconds for a look-up."""
HEAVY = 400
"""Detections of a run whose figures take long."""


class Lookups:
    """Answers for the page. Every method takes one JSON object and gives one; what goes wrong is a sentence in it."""

    def __init__(self, store: RunStore):
        self.store = store

    def heavy(self, request: Any) -> bool:
        """Whether looks into this run take long, because its model keeps more detections than any that was published."""
        try:
            return len(self.store.get(request.get("run") if isinstance(request, dict) else None).detections) > HEAVY
        except ExpiredRun:
            return False

    def open(self, request: Any) -> Answer:
        """Everything about a run that no selection changes. Request: ``run``, ``lang``."""
        return self._answer(request, self._open)

    def look(self, request: Any) -> Answer:
        """The figure and numbers of a state.

        Request: ``run``; ``state`` as in a link; ``pick`` [x, y] in [0, 1] of the photo or ``move`` [dx, dy] to change it first;
        ``seq``, given back, so that the page can drop late answers.
        """
        return self._answer(request, self._look)

    def _answer(self, request: Any, make: Callable[[Run, ViewState, dict[str, Any], Deadline], Answer]) -> Answer:
        request = request if isinstance(request, dict) else {}
        state = ViewState.from_query(request.get("state"))
        seq, deadline = request.get("seq"), Deadline(LONGEST)
        try:
            with Watch(deadline.check):
                answer = make(self.store.get(request.get("run")), state, request, deadline)
            self.store.trim()  # views keep with the run what they computed from it
            return {"seq": seq, **answer}
        except ExpiredRun:
            return {"seq": seq, "error": say(state.lang, "error.expired"), "expired": True}
        except TooSlow:
            return {"seq": seq, "error": say(state.lang, "error.slow", seconds=round(LONGEST))}
        except Exception:
            log.exception("A look-up failed")
            return {"seq": seq, "error": say(state.lang, "error.inside")}

    def _open(self, run: Run, state: ViewState, request: dict[str, Any], deadline: Deadline) -> Answer:
        found = run.detections
        height, width = run.size
        return {
            "run": run.id,
            "name": run.name,
            "model": run.model,
            "note": say(state.lang, f"note.{run.spared}") if run.spared else "",
            "source": run.source,
            "example": run.example,
            "picture": run.picture_url,
            "width": width,
            "height": height,
            "threshold": run.config.threshold,
            "detections": [
                {
                    "name": name,
                    "label": int(label),
                    "score": float(score),  # as it is: the page counts by it what the views draw
                    "box": [round(float(value), 1) for value in box],
                    "query": int(query),
                    "colour": class_colour(int(label)),
                }
                for name, score, box, query, label in zip(
                    found.names, found.scores, found.boxes, found.queries, found.labels, strict=True
                )
            ],
            "stops": stops(run),
            "scales": list(reversed(run.trace.steps[0].scales)) if run.trace.steps else [],
            "heads": run.config.heads,
            "spent": _spent(run),
        }

    def _look(self, run: Run, state: ViewState, request: dict[str, Any], deadline: Deadline) -> Answer:
        where, step = _pair(request.get("pick")), _pair(request.get("move"))
        asked = view_of(state.view, run)
        if where is not None:
            state = asked.pick(run, state.with_(view=asked.leads or asked.name), *where)
        elif step is not None:
            state = asked.move(run, state, int(step[0]), int(step[1]))
        view = view_of(state.view, run)
        # What is drawn is what the link says, to the last digit.
        state = ViewState.from_query(state.with_(view=view.name).to_query())
        job = view.job(run, state)
        answer: Answer = {
            "state": state.to_query(),
            "view": state.view,
            "job": None if job is None else {"key": job, "done": job in run.extras},
        }
        parts: dict[str, Callable[[], Any]] = {
            "figure": lambda: _json(view.drawing(run, state)),
            "summary": lambda: _plain(view.summary(run, state)),
            "controls": lambda: _plain(view.controls(run, state)),
            "charts": lambda: [_json(chart) for chart in view.charts(run, state)],
            "needs": lambda: {each.name: why for each in VIEWS.values() if (why := each.of(run).needs(run, state)) is not None},
        }
        for name, make in parts.items():
            answer[name] = make()
            deadline.check()
        return answer


def _json(drawing: Drawing) -> str:
    return orjson.dumps(drawing, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _plain(value: Any) -> Any:
    """The same without NumPy's numbers and arrays: what the page gets, and what it is compared with."""
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS))


def _spent(run: Run) -> dict[str, Any]:
    """Milliseconds, tokens and multiply-adds of the run; the neck counts as backbone, query selection as decoder."""
    milliseconds = dict(run.trace.milliseconds)
    shapes = run.trace.spatial_shapes
    names = [f"S{len(shapes) - level}" for level in range(len(shapes))]
    tokens = {name: height * width for name, (height, width) in zip(names, shapes, strict=True)}
    return {
        "milliseconds": {
            "backbone": milliseconds.get("backbone", 0.0) + milliseconds.get("neck", 0.0),
            "encoder": milliseconds.get("encoder", 0.0),
            "decoder": milliseconds.get("selection", 0.0) + milliseconds.get("decoder", 0.0),
        },
        "gmacs": {
            "backbone": run.cost.backbone + run.cost.neck,
            "encoder": run.cost.encoder,
            "decoder": run.cost.selection + run.cost.decoder,
            "total": run.cost.total,
        },
        "tokens": dict(reversed(tokens.items())),
        "input": list(run.trace.geometry.padded),
    }


def _pair(value: Any) -> tuple[float, float] | None:
    """Two finite numbers from a request, or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if not all(isinstance(part, int | float) and abs(part) < 1e6 for part in value):
        return None
    return float(value[0]), float(value[1])
