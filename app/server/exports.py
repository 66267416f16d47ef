"""A run's result as files: COCO-format JSON, and the photo with its boxes as a PNG drawn here."""

from __future__ import annotations

import io
import json

from PIL import Image, ImageDraw

from app.run.run import Run
from app.server.lettering import Lettering, written
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
    size = max(12, round(side / 52))
    found = run.detections
    shown = run.shown(threshold, classes)
    for index in reversed(shown):
        colour = class_colour(int(found.labels[index]))
        draw.rectangle([float(value) * scale for value in found.boxes[index]], outline=colour, width=line)
    for index in reversed(shown):
        colour = class_colour(int(found.labels[index]))
        x, y = (float(value) * scale for value in found.boxes[index, :2])
        name = written(found.names[index], f"class {found.labels[index]}", size)
        text = Lettering(f"{name} {found.scores[index]:.2f}", size)
        width, height = text.width + 2 * line, text.height
        x, y = max(0.0, min(x, picture.width - width)), y - height if y >= height else y
        draw.rectangle([x, y, x + width, y + height], fill=colour)
        text.draw(picture, x + line, y, ink_on(colour))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
