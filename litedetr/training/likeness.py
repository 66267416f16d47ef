"""What a trained detector calls the objects of classes that it does not know by name: their heads begin as a mixture of those.

Somebody's "vehicle" is what it calls car, bus and truck.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from litedetr.boxes import cxcywh_to_xyxy, iou
from litedetr.detector import Detector
from litedetr.training.data import PhotoSet

log = logging.getLogger(__name__)
PICTURES, EACH = 160, 40
"""Pictures that are looked at, at most, and how many for each class."""
OVERLAP, SEEN, MIXED = 0.5, 0.03, 4
"""IoU from which on an answer is about an object; mean score from which on a class is seen at all; classes in a mixture."""


@torch.no_grad()
def mixtures(detector: Detector, photos: PhotoSet, strange: Sequence[int]) -> Tensor:
    """(N, K): each of the set's classes ``strange`` as a mixture of the detector's K, shares that add up to 1; zeros where the
    detector sees nothing in its objects."""
    strange = list(strange)
    sums, counts = torch.zeros(len(strange), detector.config.num_classes), torch.zeros(len(strange))
    for index in _pictures(photos, strange):
        sample = photos.sample(index)
        pixels, _, geometry = detector.prepare(sample.image)
        output = detector.infer(pixels)
        height, width = geometry.photo
        size = torch.tensor([width, height, width, height])
        overlap = iou(torch.from_numpy(sample.boxes)[:, None] / size, cxcywh_to_xyxy(output.boxes[0].float().cpu()), eps=1e-9)
        scores = output.logits[0].float().cpu().sigmoid()  # (Q, K)
        for box, label in zip(overlap, sample.labels.tolist(), strict=True):
            if label in strange:
                answers = (scores * (box * (box >= OVERLAP))[:, None]).amax(0)  # (K,)
                sums[strange.index(label)] += answers
                counts[strange.index(label)] += 1
    means = sums / counts.clamp(min=1)[:, None]
    best = means.topk(min(MIXED, means.shape[1]), dim=1)
    kept = torch.zeros_like(means).scatter(1, best.indices, best.values.square())
    kept[means.amax(1) < SEEN] = 0
    shares = kept / kept.sum(1, keepdim=True).clamp(min=1e-12)
    for name, row in zip((photos.names[place] for place in strange), shares, strict=True):
        log.info("%s: %s", name, _words(row, detector.config.names))
    return shares


def _pictures(photos: PhotoSet, strange: list[int]) -> list[int]:
    """Some with objects of each of these classes, the same ones every time."""
    chosen: list[int] = []
    for label in strange:
        having = [index for index, photo in enumerate(photos.photos) if label in photo.labels]
        chosen += np.random.default_rng(label).permutation(having)[:EACH].tolist()
    return sorted(np.random.default_rng(0).permutation(list(dict.fromkeys(chosen)))[:PICTURES].tolist())


def _words(shares: Tensor, names: Sequence[str]) -> str:
    order = shares.argsort(descending=True)
    told = [f"{names[place]} {shares[place]:.0%}" for place in order.tolist() if shares[place] >= 0.05]
    return f"begins as {', '.join(told)}" if told else "the start sees nothing in its objects, so its heads begin at random"
