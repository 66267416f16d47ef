"""Runs of small models with random weights: every kind that a view must draw."""

from __future__ import annotations

import io
from functools import cache

import numpy as np

from app.run.run import Run
from litedetr.cost import gmacs
from tests.pictures import scene
from tests.small_models import FEW_SCALES, KINDS, small_detector, small_result


@cache
def small_run(kind: str) -> Run:
    """One photo through the model of a kind."""
    config, detections, photo = small_detector(kind).config, small_result(kind), scene(180, 120)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    return Run(
        id=f"small-{list(KINDS | FEW_SCALES).index(kind)}",
        name="scene.png",
        model=kind,
        picture=buffer.getvalue(),
        detections=detections,
        config=config,
        cost=gmacs(config, detections.trace.geometry.padded),
        photo=np.array(photo),
    )


def overlap(a, b):
    """IoU of two xyxy boxes, the long way."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)
