"""What a training starts from: a recipe's detector with random weights, or a trained one, whatever its classes."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from litedetr.detector import Detector
from litedetr.training.data import PhotoSet
from litedetr.training.recipes import Recipe

log = logging.getLogger(__name__)
CLASS_PARTS = ("heads.classes.", "selection.class_head.", "label_embed.")
"""Weights that have a row per class."""


def build_detector(recipe: Recipe, photos: PhotoSet) -> Detector:
    """The recipe's detector for the classes of ``photos``: a trained one (``recipe.start``), or random weights.

    Raises:
        ValueError: the recipe has both a start and a backbone.
    """
    from litedetr.backbones.mobilenet import load_mobilenet_backbone

    if recipe.start and recipe.backbone:
        raise ValueError(
            f"expected a trained detector or a backbone to start from, got both ({recipe.start} and {recipe.backbone}); "
            "leave the backbone out: the detector has its own"
        )
    if recipe.start:
        detector = from_trained(recipe.start, photos, dense_head=recipe.losses.dense > 0)
    else:
        classes = {"class_names": tuple(photos.names), "category_ids": tuple(photos.category_ids)}
        detector = Detector.from_preset(recipe.preset, num_classes=len(photos.names), **{**classes, **recipe.changes})
    if recipe.backbone:
        load_mobilenet_backbone(detector.backbone, recipe.backbone)
    if recipe.freeze_stem:
        detector.backbone.freeze_stem()
    return detector


@torch.no_grad()
def from_trained(source: str, photos: PhotoSet, dense_head: bool = False) -> Detector:
    """A trained detector made one for the classes of ``photos``.

    Where the classes differ, the class heads are made anew; a class that both know by the same name keeps its weights.

    Args:
        source: "embedded", a weights folder or a Hub id.
        dense_head: with a new auxiliary head for the training.
    """
    trained = Detector.from_pretrained(source)
    before, now = trained.config.names, tuple(photos.names)
    config = replace(
        trained.config,
        num_classes=len(now),
        class_names=now,
        category_ids=tuple(photos.category_ids),
        dense_head=dense_head,
    )
    detector = Detector(config)
    state = detector.state_dict()
    known = [name for name in now if name in before]
    for key, value in trained.state_dict().items():
        if before == now or not key.startswith(CLASS_PARTS):
            if not key.startswith("dense_head."):
                state[key].copy_(value)
        elif known:
            state[key][[now.index(name) for name in known]] = value[[before.index(name) for name in known]]
    if before == now:
        log.info("starting from %s, which has the same %d classes", source, len(now))
    else:
        log.info(
            "starting from %s: its %d classes are not the %d of %s, so the class heads are made anew; %s",
            source, len(before), len(now), photos.annotations,
            f"{len(known)} that both know keep their weights ({_few(known)})" if known else "the two have no class in common",
        )  # fmt: skip
    return detector


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
