"""What a trained detector calls the objects of classes that it does not know by name: their heads begin with that.

Somebody's "vehicle" is the best of what it calls car, bus and truck. What it has no name for: `litedetr.training.linear_probe`.
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
OVERLAP, SEEN, SURE, ROWS = 0.5, 0.03, 0.1, 8
"""IoU from which on an answer is about an object; mean score from which on a class is seen at all; score from which on an answer
counts where it is asked how many are right; rows of a class, at most."""


@torch.no_grad()
def likenesses(detector: Detector, photos: PhotoSet, strange: Sequence[int]) -> list[list[int]]:
    """For each of the set's classes ``strange`` those of the detector's whose answers are mostly about such objects, the most
    frequent first: the best of them is right where any is."""
    strange, classes = list(strange), detector.config.num_classes
    called, counts = torch.zeros(len(strange), classes), torch.zeros(len(strange))
    right, answers = torch.zeros(len(strange), classes), torch.zeros(classes)
    for index in pictures_of(photos, strange):
        sample = photos.sample(index)
        pixels, _, geometry = detector.prepare(sample.image)
        output = detector.infer(pixels)
        overlap = overlaps(sample.boxes, geometry.photo, output.boxes[0])  # (O, Q)
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
        found.append(best.indices[best.values > 0].tolist())
        if found[-1]:
            told = ", ".join(detector.config.names[known] for known in found[-1])
            log.info("%s: begins as %s%s", photos.names[strange[place]], "the best of " if len(found[-1]) > 1 else "", told)
    return found


def overlaps(objects: np.ndarray, photo: tuple[int, int], boxes: Tensor) -> Tensor:
    """IoU (O, N) of objects (O, 4), xyxy in a photo's pixels (height, width), and a detector's boxes (N, 4) cxcywh in [0, 1]."""
    height, width = photo
    size = torch.tensor([width, height, width, height])
    return iou(torch.from_numpy(objects)[:, None] / size, cxcywh_to_xyxy(boxes.float().cpu()), eps=1e-9)


def pictures_of(photos: PhotoSet, strange: Sequence[int]) -> list[int]:
    """Some with objects of each of these classes, the same ones every time."""
    chosen: list[int] = []
    for label in strange:
        having = [index for index, photo in enumerate(photos.photos) if label in photo.labels]
        chosen += np.random.default_rng(label).permutation(having)[:EACH].tolist()
    return sorted(np.random.default_rng(0).permutation(list(dict.fromkeys(chosen)))[:PICTURES].tolist())
