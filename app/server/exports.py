"""A run's result as files: COCO-format JSON, the photo with its boxes as a PNG drawn here, and a query's points as CSV."""

from __future__ import annotations

import csv
import io
import json

from PIL import Image

from app.run.choice import choose
from app.run.run import Run
from app.run.state import ViewState
from app.theme import class_colour, ink_on
from litedetr.draw import draw_boxes, scale_of
from litedetr.lettering import written

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
    line, size = scale_of(picture)
    found = run.detections[run.shown(threshold, classes)]
    names = [written(name, f"class {label}", size) for name, label in zip(found.names, found.labels, strict=True)]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, found.scores, strict=True)]
    colours = [class_colour(int(label)) for label in found.labels]
    draw_boxes(picture, (found.boxes * scale).tolist(), texts, colours, list(map(ink_on, colours)), line, size)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def points_csv(run: Run, state: ViewState) -> str:
    """The sampling points of the chosen query in the chosen step, a line each: x and y in the photo's pixels, beyond its borders
    too; the weights of a head sum to 1."""
    chosen = choose(run, state)
    places = run.to_photo(chosen.locations)  # (M, L, P, 2)
    heads, levels, points = chosen.weights.shape
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(("step", "query", "head", "scale", "point", "x", "y", "weight"))
    for head, level, point in ((h, level, p) for h in range(heads) for level in range(levels) for p in range(points)):
        x, y = places[head, level, point]
        weight = chosen.weights[head, level, point]
        own = (chosen.step.name, chosen.query, head + 1, chosen.step.scales[level], point + 1)
        lines.writerow((*own, f"{x:.2f}", f"{y:.2f}", f"{weight:.6f}"))
    return buffer.getvalue()
