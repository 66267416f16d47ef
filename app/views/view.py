"""What a view is. It lies beside the views, not in their list, so that every view can be made of it without a circle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from app.drawing.canvas import Drawing, canvas
from app.i18n import say
from app.run import choice
from app.run.run import Run
from app.run.state import ViewState
from litedetr import Detector

Detectors = Callable[..., Detector]
"""``detectors(source, plain=False)``: the model of a Hub id, "" for the page's own; plain: in float32, as it was trained."""
Report = Callable[[float, str], None]
"""Hears how work goes on: the share that is done, in [0, 1], and what goes on."""


def _nothing(run: Run, state: ViewState) -> list[Any]:
    return []


def _none(run: Run, state: ViewState) -> None:
    return None


def _no_work(run: Run, state: ViewState, detectors: Detectors, report: Report) -> Any:
    raise NotImplementedError("a view whose `job` gives a key needs `work` too: pass both to View.")


@dataclass(frozen=True)
class View:
    """One tab of the page: pure functions of a run and a state, and what the page must know of it.

    Attributes:
        name: in links, and of its texts: ``view.<name>`` is the tab's.
        drawing: the figure as plain data (what the page sends: checking every field takes Plotly 40 ms). Its ``layout.meta`` may
            hold ``panels`` (the axes of each photo, none for a figure without photos), ``tall`` (height over width) and
            ``beyond`` (whether the page offers to zoom out to the points beyond the photo).
        summary: the numbers beside the figure, and what the inspector writes of them: ``caption``, ``facts``, ``notes``,
            ``about`` (notes of the figure where ``notes`` are the query's), ``table``, ``badge``;
            ``answer``, the view's answer in words, before all else (``title``, ``text`` and ``tone``: "good", "warn", "bad");
            ``step``, the stop of the rail that is lit; ``line``, the sentence above the figure for a ``mouse`` and for ``touch``
            where it is not the caption.
        group: of the tabs: "see", "understand" or "change".
        controls: what a visitor can set.
        charts: further figures. One whose ``layout.meta.card`` names a card of `cards` lies there, the others in the view's own.
        pick, move: what a click at x, y in [0, 1] of the photo and an arrow key mean.
        job: the key of exactly what must be computed with a model again, None for nothing; work: computes it.
        begins: whether the job begins by itself: it takes a few seconds, and the view says most of what it says without.
        needs: a sentence that says why the view cannot show this run what it is for; None where it can.
        cards: cards of the inspector that the page fills from the summary: "query", "classes".
        rail: whether one step is looked at; a stop of the rail leads from a view without to the first one with.
        boxes: whether the detections at the model's end, "boxes", are a step of it.
        leads: the view to which what is chosen in a list leads; "" for this one.
        box: whether a visitor draws a box on the photo.
        own: whether it needs what only this project's models record: their encoder's steps, their keys, or the model itself.
    """

    name: str
    drawing: Callable[[Run, ViewState], Drawing]
    summary: Callable[[Run, ViewState], dict[str, Any]]
    group: str = "see"
    controls: Callable[[Run, ViewState], list[dict[str, Any]]] = _nothing
    charts: Callable[[Run, ViewState], list[Drawing]] = _nothing
    pick: Callable[[Run, ViewState, float, float], ViewState] = choice.pick
    move: Callable[[Run, ViewState, int, int], ViewState] = choice.move
    job: Callable[[Run, ViewState], str | None] = _none
    work: Callable[[Run, ViewState, Detectors, Report], Any] = _no_work
    begins: bool = False
    needs: Callable[[Run, ViewState], str | None] = _none
    cards: tuple[str, ...] = ()
    rail: bool = True
    boxes: bool = False
    leads: str = ""
    box: bool = False
    own: bool = False

    def of(self, run: Run) -> View:
        """Itself; or, where the run is another code base's and it cannot show that, the photo and a sentence that says so."""
        if run.own or not self.own:
            return self
        return replace(self, drawing=_photo, summary=_sentence, needs=_why, **_SILENT)

    def figure(self, run: Run, state: ViewState) -> go.Figure:
        """`drawing` as a checked figure."""
        return go.Figure(self.drawing(run, state))

    def facts(self) -> dict[str, Any]:
        """What the page must know of it."""
        return {
            "name": self.name,
            "group": self.group,
            "cards": self.cards,
            "rail": self.rail,
            "boxes": self.boxes,
            "leads": self.leads,
            "box": self.box,
            "begins": self.begins,
        }


def _why(run: Run, state: ViewState) -> str:
    return say(state.lang, "needs.own", model=run.model)


def _photo(run: Run, state: ViewState) -> Drawing:
    return canvas(run, [])


def _sentence(run: Run, state: ViewState) -> dict[str, Any]:
    return {"caption": say(state.lang, "needs.nothing", model=run.model), "notes": [_why(run, state)]}


_SILENT = {"controls": _nothing, "charts": _nothing, "pick": choice.pick, "move": choice.move, "job": _none, "work": _no_work}
