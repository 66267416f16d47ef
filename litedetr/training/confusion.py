"""Which class is taken for which, and how precision falls as recall rises: as numbers and as SVG pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from pycocotools import mask

from litedetr.training.charts import BLUE, GREEN, ORANGE, Line, Panel, svg

RIGHT = 0.5
"""IoU from which on a detection is of an object, whatever their classes."""
SHOWN = 20
"""Classes in a picture of the matrix, the most frequent ones."""


def confusion(
    content: dict[str, Any], results: Sequence[dict[str, Any]], image_ids: Sequence[Any], threshold: float
) -> np.ndarray:
    """(K + 1, K + 1) counts: objects of class i (K: no object) found as class j (K: not found).

    Detections of at least ``threshold`` take, best first, the object that they overlap most, by `RIGHT` or more; those that lie
    at least half in a crowd count for nothing.
    """
    place = {category["id"]: index for index, category in enumerate(content["categories"])}
    none = len(place)
    counts = np.zeros((none + 1, none + 1), int)
    objects, crowds, found = (defaultdict(list) for _ in range(3))
    for entry in content["annotations"]:
        (crowds if entry.get("iscrowd") else objects)[entry["image_id"]].append(entry)
    for entry in results:
        if entry["score"] >= threshold:
            found[entry["image_id"]].append(entry)
    for image in image_ids:
        best = sorted(found[image], key=lambda entry: -entry["score"])
        overlaps, inside = _overlaps(best, objects[image], 0), _overlaps(best, crowds[image], 1)
        free = np.ones(len(objects[image]), bool)
        for row, entry in enumerate(best):
            candidates = np.where(free, overlaps[row], 0.0)
            column = place[entry["category_id"]]
            if len(candidates) and candidates.max() >= RIGHT:
                chosen = int(candidates.argmax())
                free[chosen] = False
                counts[place[objects[image][chosen]["category_id"]], column] += 1
            elif not (len(inside[row]) and inside[row].max() >= RIGHT):
                counts[none, column] += 1
        for index in np.flatnonzero(free):
            counts[place[objects[image][index]["category_id"]], none] += 1
    return counts


def _overlaps(found: list[dict[str, Any]], others: list[dict[str, Any]], crowd: int) -> np.ndarray:
    if not found or not others:
        return np.zeros((len(found), len(others)))
    boxes = [np.array([entry["bbox"] for entry in entries], np.float64) for entries in (found, others)]
    return mask.iou(*boxes, [crowd] * len(others))


def confusion_svg(counts: np.ndarray, names: Sequence[str]) -> str:
    """Rows: what it was; columns: what it was found as; a cell is as dark as its share of the row."""
    order = [*np.argsort(-counts[:-1].sum(1), kind="stable")[:SHOWN].tolist(), len(counts) - 1]
    titles = [*names, "nothing"]
    cell, left, top = 34, 130, 130
    side = cell * len(order)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + side + 20} {top + side + 30}" width="{left + side + 20}" '
        'font-family="sans-serif" font-size="12" role="img" aria-label="Confusion matrix">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{left + side / 2}" y="{top + side + 22}" text-anchor="middle" font-weight="bold">found as</text>',
        f'<text transform="translate(14 {top + side / 2}) rotate(-90)" text-anchor="middle" font-weight="bold">it was</text>',
    ]
    for row, true in enumerate(order):
        y, total = top + row * cell, max(int(counts[true].sum()), 1)
        parts.append(f'<text x="{left - 6}" y="{y + 22}" text-anchor="end">{escape(titles[true][:16])}</text>')
        x = left + row * cell + 22
        parts.append(f'<text transform="translate({x} {top - 6}) rotate(-90)">{escape(titles[true][:16])}</text>')
        for column, seen in enumerate(order):
            count = int(counts[true, seen])
            share = count / total
            x, ink = left + column * cell, "#ffffff" if share > 0.5 else "#1c2430"
            place, look = f'x="{x}" y="{y}"', f'fill="{BLUE}" fill-opacity="{max(share, 0.04):.3f}"'
            parts.append(f'<rect {place} width="{cell - 1}" height="{cell - 1}" {look}/>')
            if count:
                parts.append(f'<text x="{x + cell / 2}" y="{y + 21}" text-anchor="middle" fill="{ink}">{count}</text>')
    return "\n".join([*parts, "</svg>", ""])


def precision_svg(curves: dict[str, Sequence[float]]) -> str:
    """Precision at COCO's 101 recalls, the mean over the classes, at three overlaps."""
    recalls = np.linspace(0, 1, 101)
    lines = [
        Line(f"IoU {name}", list(zip(recalls.tolist(), values, strict=True)), colour)
        for (name, values), colour in zip(curves.items(), (BLUE, GREEN, ORANGE), strict=False)
    ]
    return svg([Panel("", "recall", "precision", 1.0, 1.0, lines)], "Precision against recall")
