"""What a trained detector calls the objects of classes that it does not know by name: their heads begin with that.

Somebody's "vehicle" is the best of what it calls car, bus and truck; where no class of its own says it so, a mixture of some.
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
OVERLAP, SEEN, SURE, MIXED, ROWS = 0.5, 0.03, 0.1, 4, 8
"""IoU from which on an answer is about an object; mean score from which on a class is seen at all; score from which on an answer
counts where it is asked how many are right; classes in a mixture; rows of a class, at most."""


@torch.no_grad()
def likenesses(detector: Detector, photos: PhotoSet, strange: Sequence[int]) -> list[Tensor]:
    """For each of the set's classes ``strange`` (R, K): the rows that it begins with, each as shares of the detector's K classes,
    which add up to 1.

    A row for each class whose answers are mostly about such objects, since the best of them is right where any is; else one row,
    a mixture of what the detector calls them; none where it sees nothing in them.
    """
    strange, classes = list(strange), detector.config.num_classes
    called, counts = torch.zeros(len(strange), classes), torch.zeros(len(strange))
    right, answers = torch.zeros(len(strange), classes), torch.zeros(classes)
    for index in _pictures(photos, strange):
        sample = photos.sample(index)
        pixels, _, geometry = detector.prepare(sample.image)
        output = detector.infer(pixels)
        height, width = geometry.photo
        size = torch.tensor([width, height, width, height])
        overlap = iou(torch.from_numpy(sample.boxes)[:, None] / size, cxcywh_to_xyxy(output.boxes[0].float().cpu()), eps=1e-9)
        scores = output.logits[0].float().cpu().sigmoid()  # (Q, K)
        sure = scores * (scores >= SURE)
        answers += sure.sum(0)
        for place, label in enumerate(strange):
            own = overlap[torch.from_numpy(sample.labels) == label]  # (N, Q)
            near = own * (own >= OVERLAP)
            called[place] += (scores * near[..., None]).amax(1).sum(0)
            counts[place] += len(own)
            right[place] += sure[(near > 0).any(0)].sum(0)
    found = []
    for place, means in enumerate(called / counts.clamp(min=1)[:, None]):
        says = (means >= SEEN) & (right[place] > answers / 2)
        best = means.where(says, torch.zeros(())).topk(min(ROWS, classes))
        rows = torch.eye(classes)[best.indices[best.values > 0]]
        if not len(rows) and means.amax() >= SEEN:
            most = means.topk(min(MIXED, classes))
            mixed = torch.zeros(classes).scatter(0, most.indices, most.values.square())
            rows = (mixed / mixed.sum())[None]
        log.info("%s: %s", photos.names[strange[place]], _words(rows, detector.config.names))
        found.append(rows)
    return found


def _pictures(photos: PhotoSet, strange: list[int]) -> list[int]:
    """Some with objects of each of these classes, the same ones every time."""
    chosen: list[int] = []
    for label in strange:
        having = [index for index, photo in enumerate(photos.photos) if label in photo.labels]
        chosen += np.random.default_rng(label).permutation(having)[:EACH].tolist()
    return sorted(np.random.default_rng(0).permutation(list(dict.fromkeys(chosen)))[:PICTURES].tolist())


def _words(rows: Tensor, names: Sequence[str]) -> str:
    if not len(rows):
        return "the start sees nothing in its objects, so its heads begin at random"
    if len(rows) > 1:
        return f"begins as the best of {', '.join(names[place] for place in rows.argmax(1).tolist())}"
    (row,) = rows
    told = [f"{names[place]} {row[place]:.0%}" for place in row.argsort(descending=True).tolist() if row[place] >= 0.05]
    return f"begins as {', '.join(told)}"
