"""A run's result as files: COCO-format JSON, and the photo with its boxes as a PNG drawn here."""

from __future__ import annotations

import io
import json

from PIL import Image, ImageDraw, ImageFont

from app.run.run import Run
from app.theme import class_colour, ink_on

SMALLEST = 1200
"""Longer side of a picture with boxes, at least: labels can be read on a slide."""


def coco_json(run: Run, threshold: float | None = None, classes: tuple[int, ...] = ()) -> str:
    """COCO's format: one image, the categories that occur, one annotation per detection with its score."""
    found = run.detections[run.shown(threshold, classes)]
    height, width = run.size
    results = [
        {"id": number, **entry, "area": round(entry["bbox"][2] * entry["bbox"][3], 2), "iscrowd": 0}
        for number, entry in enumerate(found.to_coco(1), start=1)
    ]
    labels = sorted({int(label) for label in found.labels})
    content = {
        "info": {"description": "Detections by Lite DETR", "model": run.model, "threshold": run.threshold(threshold)},
        "images": [{"id": 1, "file_name": run.name, "width": width, "height": height}],
        "categories": [{"id": int(found.category_ids[label]), "name": found.class_names[label]} for label in labels],
        "annotations": results,
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def png(run: Run, threshold: float | None = None, classes: tuple[int, ...] = ()) -> bytes:
    """The photo as shown in the page with its boxes and labels, enlarged where it is small."""
    picture = Image.open(io.BytesIO(run.picture)).convert("RGB")
    if max(picture.size) < SMALLEST:
        grown = SMALLEST / max(picture.size)
        picture = picture.resize((round(picture.width * grown), round(picture.height * grown)), Image.Resampling.LANCZOS)
    scale = picture.width / run.size[1]
    draw = ImageDraw.Draw(picture)
    side = max(picture.size)
    line = max(2, round(side / 320))
    font = ImageFont.load_default(size=max(12, round(side / 52)))
    found = run.detections
    shown = run.shown(threshold, classes)
    for index in reversed(shown):
        colour = class_colour(int(found.labels[index]))
        draw.rectangle([float(value) * scale for value in found.boxes[index]], outline=colour, width=line)
    for index in reversed(shown):
        colour = class_colour(int(found.labels[index]))
        x, y = (float(value) * scale for value in found.boxes[index, :2])
        text = f"{found.names[index]} {found.scores[index]:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        room = bottom - top + 2 * line
        y = y - room if y >= room else y
        draw.rectangle([x, y, x + right - left + 2 * line, y + room], fill=colour)
        draw.text((x + line - left, y + line - top), text, fill=ink_on(colour), font=font)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
