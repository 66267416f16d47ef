"""Views: pure functions of a run and a state. ``figure`` gives a Plotly figure, ``summary`` the numbers beside it."""

from app.views import detections, points

VIEWS = {"detections": detections, "points": points}
"""What the stage can show, by `ViewState.view`."""
