"""The models that a view offers beside the one that made the run."""

from __future__ import annotations

from app.engine.models import offered
from app.i18n import say
from app.run.run import Run
from app.run.state import HUB_ID, ViewState

OWN = "own"
"""The page's own model as `ViewState.other`."""


def other_models(run: Run, state: ViewState) -> list[list[str]]:
    """[value of `ViewState.other`, name] of each: the page's own where another made the run, those of the list, and the one that
    a link names."""
    known = {entry["id"]: entry["name"] or entry["id"] for entry in offered() if entry["id"] != run.source}
    if HUB_ID.match(state.other) and state.other != run.source:
        known.setdefault(state.other, state.other)
    own = [[OWN, say(state.lang, "models.own")]] if run.source else []
    return own + [[source, name] for source, name in known.items()]
