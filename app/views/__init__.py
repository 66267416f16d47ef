"""Views: pure functions of a run and a state.

Each has ``drawing``, a figure as plain data (what the page sends: checking every field takes Plotly 40 ms), ``figure``, the same
as a checked ``plotly.graph_objects.Figure``, and ``summary``, the numbers beside it.
"""

from app.views import detections, points

VIEWS = {"detections": detections, "points": points}
"""What the stage can show, by `ViewState.view`."""
