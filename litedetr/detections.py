"""Detections: the one result type, with its exporters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litedetr.boxes import cxcywh_to_xyxy, pairwise_iou
from litedetr.trace import Trace


@dataclass(frozen=True)
class Detections:
    """What was found in one photo, sorted by score, best first.

    Attributes:
        boxes: (N, 4) float32 xyxy in the photo's pixels, clipped to the photo.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64 class indices.
        queries: (N,) int64, the decoder query that each came from.
        class_names: one per class; category_ids: one per class, as they appear in COCO-format results.
        photo_size: (height, width) in pixels.
        trace: what the model looked at, if it was asked to record it.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    queries: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    photo_size: tuple[int, int]
    trace: Trace | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """One class name per detection."""
        return [self.class_names[label] for label in self.labels]

    def above(self, threshold: float) -> Detections:
        """Those with at least this score."""
        return self[self.scores >= threshold]

    def __getitem__(self, which: np.ndarray | slice | list[int]) -> Detections:
        """A selection by mask, slice or indices; the trace stays."""
        return replace(
            self,
            boxes=self.boxes[which],
            scores=self.scores[which],
            labels=self.labels[which],
            queries=self.queries[which],
        )

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO's result format: one dict per detection with image_id, category_id, bbox (x, y, width, height) and score."""
        return [
            {
                "image_id": image_id,
                "category_id": int(self.category_ids[label]),
                "bbox": [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(score), 5),
            }
            for (x1, y1, x2, y2), score, label in zip(self.boxes, self.scores, self.labels, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: photo size and one dict per detection with name, label, score and box (xyxy, pixels)."""
        height, width = self.photo_size
        return {
            "width": int(width),
            "height": int(height),
            "detections": [
                {
                    "name": name,
                    "label": int(label),
                    "score": round(float(score), 5),
                    "box": [round(float(v), 2) for v in box],
                }
                for name, label, score, box in zip(self.names, self.labels, self.scores, self.boxes, strict=True)
            ],
        }


def check_threshold(threshold: float) -> float:
    """The lowest score to keep, as it is.

    Raises:
        ValueError: it is no score from 0 to 1.
    """
    if not 0 <= threshold <= 1:
        hint = f"for {threshold:g} % give {threshold / 100:g}" if 1 < threshold <= 100 else "give one of these"
        raise ValueError(f"expected a threshold from 0 to 1, as scores are, got {threshold:g}: {hint}")
    return threshold


def top_k(logits: Tensor, boxes: Tensor, sizes: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Post-processing of sigmoid detectors (Deformable DETR): the best (query, class) pairs of every photo.

    Args:
        logits: (B, Q, K); boxes: (B, Q, 4) cxcywh in [0, 1]; sizes: (B, 2) (height, width) that boxes are scaled to.
        k: how many to keep, at most Q * K.

    Returns:
        scores (B, N), labels (B, N), boxes (B, N, 4) xyxy in pixels, queries (B, N); best first.
    """
    B, Q, K = logits.shape
    scores, index = logits.float().sigmoid().flatten(1).topk(min(k, Q * K), dim=1)
    queries = torch.div(index, K, rounding_mode="floor")
    chosen = cxcywh_to_xyxy(boxes.float()).gather(1, queries[..., None].expand(-1, -1, 4))
    height, width = sizes.to(chosen).unbind(-1)
    return scores, index % K, chosen * torch.stack((width, height, width, height), dim=-1)[:, None], queries


def class_nms(boxes: Tensor, labels: Tensor, nms_iou: float | None) -> Tensor:
    """Non-maximum suppression within each class: those stay whose IoU with every better one that stays is below `nms_iou`.

    Few decoder layers, trained for a short time, leave an object to several queries now and then.

    Args:
        boxes: (N, 4) xyxy, by falling score; labels: (N,); nms_iou: in (0, 1], None to keep all.

    Returns:
        (N,) bool.
    """
    keep = torch.ones(len(boxes), dtype=torch.bool)
    if nms_iou is None or len(boxes) == 0:
        return keep
    boxes, labels = boxes.cpu(), labels.cpu()
    clash = (pairwise_iou(boxes, boxes) >= nms_iou) & (labels[:, None] == labels)  # NaN of empty boxes is no clash
    for place in clash.tril(-1).any(1).nonzero().flatten().tolist():  # few have a better one to clash with
        keep[place] = not (clash[place, :place] & keep[:place]).any()
    return keep
