"""Runs of small models with random weights: every kind that a view must draw."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import torch

from app.run.run import Run
from litedetr import Detector
from litedetr.cost import gmacs
from tests.app.conftest import scene

_SMALL = {
    "short_side": 128,
    "long_side": 192,
    "queries": 20,
    "num_classes": 5,
    "encoder_ffn": 64,
    "low_ffn": 32,
    "decoder_ffn": 64,
}
_PLAIN = {"key_aware": False, "low_ffn": None, "schedule": "H4L0-(1+1)x2"}
_ONE_STAGE = {"family": "deformable_detr", "two_stage": False, "learned_content": False, "shared_heads": False}

KINDS = {
    "H3L1": {"schedule": "H3L1-(2+1)x2"},
    "H2L2": {"schedule": "H2L2-(2+1)x2"},
    "full": _PLAIN,
    "full, keys": {**_PLAIN, "key_aware": True},
    "three scales": {"schedule": "H2L1-(3+1)x1", "levels": 3},
    "five scales": {"schedule": "H4L1-(2+1)x1", "levels": 5},
    "two-stage": {**_PLAIN, "family": "deformable_detr", "learned_content": False, "shared_heads": False},
    "one-stage": {**_PLAIN, **_ONE_STAGE},
    "one-stage, boxes stay": {**_PLAIN, **_ONE_STAGE, "box_refine": False, "shared_heads": True},
}


@cache
def small_detector(kind: str) -> Detector:
    """The model of a kind."""
    torch.manual_seed(5)
    detector = Detector.from_preset("lite-dino-mobilenet", **{**_SMALL, **KINDS[kind]})
    with torch.no_grad():
        for heads in (detector.heads.boxes, [getattr(detector.selection, "box_head", None)]):
            for head in filter(None, heads):
                head.layers[-1].weight.normal_(std=0.1)  # boxes that move
        for head in (*detector.heads.classes, getattr(detector.selection, "class_head", None)):
            if head is not None:
                head.bias.normal_(-1.0)  # scores that differ
    return detector


@cache
def small_run(kind: str) -> Run:
    """One photo through the model of a kind."""
    detector = small_detector(kind)
    photo = scene(180, 120)
    detections = detector.predict(photo, threshold=0.0, trace=True)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    return Run(
        id=f"small-{list(KINDS).index(kind)}",
        name="scene.png",
        model=kind,
        picture=buffer.getvalue(),
        detections=detections,
        config=detector.config,
        cost=gmacs(detector.config, detections.trace.geometry.padded),
        photo=np.array(photo),
    )
