"""A run whose network input is padded, as a batch's would be: photos alone are stretched."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import torch

from app.run.run import Run
from litedetr import Detector, Trace
from litedetr.cost import gmacs
from litedetr.image import PhotoGeometry
from tests.pictures import scene

SIZE, PADDED = (96, 128), (128, 192)
"""(height, width) of the photo, and of the input in whose upper left corner it lies."""


@cache
def padded_run(key_aware: bool = True) -> Run:
    """A small model with random weights."""
    torch.manual_seed(7)
    detector = Detector.from_preset("lite-dino-mobilenet", queries=12, num_classes=5, key_aware=key_aware)
    photo = scene(SIZE[1], SIZE[0])
    pixels, mask = torch.zeros(1, 3, *PADDED), torch.ones(1, *PADDED, dtype=torch.bool)
    pixels[0, :, : SIZE[0], : SIZE[1]] = torch.rand(3, *SIZE)
    mask[0, : SIZE[0], : SIZE[1]] = False
    geometry = PhotoGeometry(SIZE, SIZE, PADDED)
    trace = Trace(geometry=geometry)
    with torch.inference_mode():
        output = detector(pixels, mask, trace=trace)
        detections = detector.detections(output, [geometry], 0.0, trace)[0]
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    cost = gmacs(detector.config, PADDED)
    return Run(f"padded-{key_aware}", "scene", "padded", buffer.getvalue(), detections, detector.config, cost, np.array(photo))
