"""A run's log as a Plotly figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from litedetr.training.loop import read_log

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plot_log(path: Path | str) -> go.Figure:
    """Losses, rate and speed over the steps of a ``log.jsonl``, and the measurements on val."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    lines = read_log(path)
    steps = [line for line in lines if "loss" in line]
    measured = [line for line in lines if "val" in line]
    figure = make_subplots(
        rows=2, cols=2, shared_xaxes=True, subplot_titles=("losses", "AP on val, %", "learning rate", "photos a second")
    )
    names = [name for name in ("loss", "loss_ce", "loss_bbox", "loss_giou", "loss_ce_dn", "loss_ce_dense", "norm")
             if any(name in line for line in steps)]  # fmt: skip
    for name in names:
        chosen = [line for line in steps if name in line]
        figure.add_trace(
            go.Scatter(x=[line["step"] for line in chosen], y=[line[name] for line in chosen], name=name), row=1, col=1
        )
    for name in ("AP", "AP50"):
        y = [100 * line["val"][name] for line in measured]
        figure.add_trace(go.Scatter(x=[line["step"] for line in measured], y=y, name=name, mode="lines+markers"), row=1, col=2)
    x = [line["step"] for line in steps]
    for name, column in (("rate", 1), ("photos_per_second", 2)):
        figure.add_trace(go.Scatter(x=x, y=[line[name] for line in steps], name=name, showlegend=False), row=2, col=column)
    figure.update_yaxes(type="log", row=1, col=1)
    figure.update_xaxes(title_text="step", row=2)
    return figure
