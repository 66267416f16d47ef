"""Boxes and names drawn into a picture: for downloads, ``detect --draw``, and a look at a training set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from litedetr.lettering import Lettering, written

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")
"""Of classes, in turn: those of Okabe and Ito, which a colour-blind person can tell apart."""
INKS = ("#000000", "#000000", "#ffffff", "#000000", "#ffffff", "#000000", "#000000", "#000000")
"""Of letters on them."""


def draw_boxes(
    picture: Image.Image,
    boxes: Sequence[Sequence[float]],
    texts: Sequence[str],
    colours: Sequence[str],
    inks: Sequence[str],
    line: int,
    size: int,
) -> None:
    """Boxes (x1, y1, x2, y2 in the picture's pixels) with their texts above them, the first on top; ``line`` and ``size`` of
    letters in pixels."""
    draw = ImageDraw.Draw(picture)
    for box, colour in zip(boxes[::-1], colours[::-1], strict=True):
        draw.rectangle(list(box), outline=colour, width=line)
    for (x, y, _, _), text, colour, ink in zip(boxes[::-1], texts[::-1], colours[::-1], inks[::-1], strict=True):
        letters = Lettering(text, size)
        width, height = letters.width + 2 * line, letters.height
        x, y = max(0.0, min(x, picture.width - width)), y - height if y >= height else y
        draw.rectangle([x, y, x + width, y + height], fill=colour)
        letters.draw(picture, x + line, y, ink)


def scale_of(picture: Image.Image) -> tuple[int, int]:
    """The width of lines and the size of letters that suit a picture, in pixels."""
    side = max(picture.size)
    return max(2, round(side / 320)), max(12, round(side / 52))


def drawn(pixels: np.ndarray, boxes: np.ndarray, names: Sequence[str], labels: np.ndarray, scores: np.ndarray) -> Image.Image:
    """(H, W, 3) uint8 RGB with what was found in it: boxes (N, 4) xyxy in pixels, and N names, class indices and scores."""
    picture = Image.fromarray(pixels)
    line, size = scale_of(picture)
    shown = [written(name, f"class {label}", size) for name, label in zip(names, labels.tolist(), strict=True)]
    texts = [f"{name} {score:.2f}" for name, score in zip(shown, scores, strict=True)]
    colours, inks = ([of[label % len(of)] for label in labels.tolist()] for of in (COLOURS, INKS))
    draw_boxes(picture, boxes.tolist(), texts, colours, inks, line, size)
    return picture
