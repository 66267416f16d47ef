"""The views: what the stage can show of a run. A new one is a file or a folder here, its texts, and a line in the list below."""

from __future__ import annotations

from app.run.run import Run
from app.views import attended, desire, detections, film, leak, lookers, mattered, missed, onion, points, schedule, versus
from app.views.view import View

VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        detections.VIEW,
        points.VIEW,
        attended.VIEW,
        film.VIEW,
        onion.VIEW,
        desire.VIEW,
        lookers.VIEW,
        missed.VIEW,
        leak.VIEW,
        mattered.VIEW,
        schedule.VIEW,
        versus.VIEW,
    )
}
"""By `ViewState.view`, in the order of the tabs; the first is what a link without a view shows."""


def view_of(name: str, run: Run) -> View:
    """The view of a name as it shows a run; the first where there is no such view."""
    return VIEWS.get(name, next(iter(VIEWS.values()))).of(run)
