"""Clicks and arrow keys that choose something and stay in the view."""

from __future__ import annotations

from app import selection
from app.run import Run
from app.state import ViewState


def pick(run: Run, state: ViewState, x: float, y: float) -> ViewState:
    """`app.selection.pick`, in the same view."""
    return selection.pick(run, state, x, y).with_(view=state.view)


def move(run: Run, state: ViewState, dx: int, dy: int) -> ViewState:
    """`app.selection.move`, in the same view."""
    return selection.move(run, state, dx, dy).with_(view=state.view)
