"""How results show themselves in a notebook: a photo with its boxes, a trace's steps as a table. Needs no PyTorch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from litedetr.draw import drawn

if TYPE_CHECKING:
    from litedetr.detections import Detections

LONGEST = 800
"""Pixels of the picture's longer side at most."""


def picture(found: Detections) -> bytes | None:
    """The photo with a box, a name and a score for each detection, as a PNG file; None where the photo is not known."""
    if found.photo is None:
        return None
    shown, file = drawn(found.photo, found), io.BytesIO()
    shown.thumbnail((LONGEST, LONGEST))
    shown.save(file, "PNG")
    return file.getvalue()


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; numbers are at the right."""
    cells = [
        "".join(f'<td style="text-align:{_side(value)}">{escape(_text(value))}</td>' for value in row) for row in rows
    ]
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _side(value: object) -> str:
    return "left" if isinstance(value, str) else "right"


def _text(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float | np.floating) else f"{value:,}" if isinstance(value, int) else str(value)
