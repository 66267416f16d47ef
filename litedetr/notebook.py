"""How results show themselves in a notebook: a photo with its boxes, a trace's steps as a table. Needs no PyTorch."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from litedetr.detections import Detections

LONGEST = 800
"""Pixels of the picture's longer side at most."""


def picture(found: Detections) -> bytes | None:
    """The photo with a box, a name and a score for each detection, as a PNG file; None where the photo is not known."""
    if found.photo is None:
        return None
    image = Image.fromarray(found.photo)
    scale = min(1.0, LONGEST / max(image.size))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    for box, name, score, label in reversed(list(zip(found.boxes * scale, found.names, found.scores, found.labels, strict=True))):
        colour = _colour(int(label))
        draw.rectangle(box.tolist(), outline=colour, width=3)
        place = (float(box[0]) + 3, float(box[1]) + 2)
        text = f"{name} {score:.2f}".encode("ascii", "replace").decode()  # what the built-in font has
        draw.rectangle(draw.textbbox(place, text), fill=colour)
        draw.text(place, text, fill="white")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _colour(label: int) -> tuple[int, ...]:
    """Dark enough for white letters; neighbouring classes lie far apart."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618 % 1, 0.85, 0.65)
    return tuple(round(255 * part) for part in (red, green, blue))


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
