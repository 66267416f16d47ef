"""Views: pure functions of a run and a state.

Each has ``drawing``, a figure as plain data (what the page sends: checking every field takes Plotly 40 ms), ``figure``, the same
as a checked ``plotly.graph_objects.Figure``, and ``summary``, the numbers beside it with what the inspector writes: ``facts``,
``notes``, ``caption``, ``table``, ``badge``. It may have ``controls`` (what a visitor can set), ``charts`` (further figures),
``pick`` and ``move`` (what a click and an arrow key mean in it, where that is not what `app.selection` says), and, for what needs
the model again, ``job`` (a key that names exactly what must be computed) and ``work`` (computes it).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from app.run.state import VIEWS as NAMES

VIEWS: dict[str, ModuleType] = {name: import_module(f"{__name__}.{name}") for name in NAMES if find_spec(f"{__name__}.{name}")}
"""What the stage can show, by `ViewState.view`, in the order of the tabs."""


def view_of(name: str) -> ModuleType:
    """The view of a name; the detections where there is no such view."""
    return VIEWS.get(name, VIEWS["detections"])
