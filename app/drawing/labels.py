"""Names on boxes: letters on a ground of the box's colour, readable on any photo."""

from __future__ import annotations

from html import escape
from typing import Any

from app.theme import FONT, ink_on


def label(
    x: float, y: float, text: str, colour: str, leftward: bool = False, upward: bool = False, size: int = 12
) -> dict[str, Any]:
    """An annotation of Plotly's at x, y in the photo's pixels, from where it reaches to the right and down, or the other way."""
    return {
        "x": x,
        "y": y,
        "xanchor": "right" if leftward else "left",
        "yanchor": "bottom" if upward else "top",
        "text": escape(text),
        "showarrow": False,
        "font": {"color": ink_on(colour), "size": size, "family": FONT, "weight": 600},
        "bgcolor": colour,
        "borderpad": 2,
        "xshift": 1 if leftward else -1,
        "captureevents": False,
    }
