"""How results show themselves in a notebook: a photo with its boxes, a trace's steps as a table. Needs no PyTorch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

LONGEST = 800
"""Pixels of the picture's longer side at most."""


def png(shown: Image.Image) -> bytes:
    """A picture as a PNG file, of a size that suits a notebook."""
    file = io.BytesIO()
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
