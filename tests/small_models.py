"""Every preset and every kind of model, small, with random weights from a seed."""

from __future__ import annotations

from functools import cache

import torch

from litedetr import Detections, Detector
from litedetr.config import preset, presets
from tests.pictures import scene


def small(name: str, **changes) -> Detector:
    """A preset with the same parts and few channels."""
    config = preset(name)
    changes = {
        "width": 32, "heads": 4, "encoder_ffn": 24, "decoder_ffn": 24, "low_ffn": config.low_ffn and 16, "decoder_layers": 2,
        "queries": 12, "one_to_many_queries": config.one_to_many_queries and 7,
        "backbone_width": {"swin_tiny": 12}.get(config.backbone, 2),
        "short_side": 96, "long_side": 96, **changes,
    }  # fmt: skip
    torch.manual_seed(1)
    return Detector.from_preset(name, **changes)


ONE_OF_EACH = sorted(
    name for name in presets() if not name.endswith(("h2l2-2x3", "h3l1-6x1", "h3l1-3x2")) or name.startswith("lite-dino-r50")
)
"""The presets, those of them that differ in their schedule alone once."""

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
    "H2L2": {"schedule": "H2L2-(2+1)x2", "class_rows": (2, 1, 3, 1, 1)},
    "full": _PLAIN,
    "full, keys": {**_PLAIN, "key_aware": True},
    "three scales": {"schedule": "H2L1-(3+1)x1", "levels": 3},
    "five scales": {"schedule": "H4L1-(2+1)x1", "levels": 5},
    "two-stage": {**_PLAIN, "family": "deformable_detr", "learned_content": False, "shared_heads": False},
    "one-stage": {**_PLAIN, **_ONE_STAGE},
    "one-stage, boxes stay": {**_PLAIN, **_ONE_STAGE, "box_refine": False, "shared_heads": True},
}
FEW_SCALES = {
    "one scale": {**_PLAIN, **_ONE_STAGE, "levels": 1, "schedule": "H1L0-(1+1)x2"},
    "two scales": {"levels": 2, "schedule": "H1L1-(2+1)x1"},
}


@cache
def small_detector(kind: str) -> Detector:
    """The model of a kind."""
    torch.manual_seed(5)
    detector = Detector.from_preset("lite-dino-mobilenet", **{**_SMALL, **(KINDS | FEW_SCALES)[kind]})
    with torch.no_grad():
        for heads in (detector.heads.boxes, [getattr(detector.selection, "box_head", None)]):
            for head in filter(None, heads):
                head.layers[-1].weight.normal_(std=0.1)  # boxes that move
        for head in (*detector.heads.classes, getattr(detector.selection, "class_head", None)):
            if head is not None:
                head.bias.normal_(-1.0)  # scores that differ
    return detector


@cache
def small_result(kind: str) -> Detections:
    """Everything that the model of a kind finds in `scene(180, 120)`, with its trace."""
    return small_detector(kind).predict(scene(180, 120), threshold=0.0, trace=True)
