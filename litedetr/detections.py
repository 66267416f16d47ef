"""Detections: the one result type, how it is made from a model's outputs, and its exporters. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from litedetr.config import DetectorConfig
from litedetr.draw import drawn
from litedetr.notebook import png

if TYPE_CHECKING:
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
        photo: (h, w, 3) uint8 RGB where `predict` had it, smaller than the photo where that is enough: a notebook shows the boxes
            on it.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    queries: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    photo_size: tuple[int, int]
    trace: Trace | None = field(default=None, repr=False, compare=False)
    photo: np.ndarray | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_outputs(
        cls,
        logits: np.ndarray,
        boxes: np.ndarray,
        photo_size: tuple[int, int],
        config: DetectorConfig,
        threshold: float | None = None,
        trace: Trace | None = None,
    ) -> Detections:
        """What a model's outputs for one photo say.

        Args:
            logits: (Q, K) before the sigmoid; boxes: (Q, 4) cxcywh in [0, 1].
            photo_size: (height, width) in pixels.
            config: of the model, which says how many are kept, which of them are dropped as duplicates, and the names; or a
                `litedetr.guests.detector.GuestConfig`.
            threshold: lowest score to keep; ``config.threshold`` if None.
        """
        threshold = config.threshold if threshold is None else check_threshold(threshold)
        scores, labels, corners, queries = top_k(logits, boxes, photo_size, config.top_k)
        height, width = photo_size
        found = cls(
            boxes=corners.clip(0, np.float32((width, height, width, height))),
            scores=scores,
            labels=labels,
            queries=queries,
            class_names=config.names,
            category_ids=config.ids,
            photo_size=photo_size,
            trace=trace,
        )
        return found[class_nms(corners, labels, config.nms_iou)].above(threshold)

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

    def drawn_on(self, pixels: np.ndarray) -> Image.Image:
        """(h, w, 3) uint8 RGB, the photo in any size, with a box, a name and a score for each detection."""
        down, across = (given / own for given, own in zip(pixels.shape, self.photo_size, strict=False))
        boxes = self.boxes * np.float32((across, down, across, down))
        return drawn(pixels, boxes, self.names, self.labels, self.scores)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the photo with its boxes; None where the photo is not known."""
        return None if self.photo is None else png(self.drawn_on(self.photo))

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


def top_k(
    logits: np.ndarray, boxes: np.ndarray, size: tuple[int, int], k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Post-processing of sigmoid detectors (Deformable DETR): the best (query, class) pairs of a photo.

    Args:
        logits: (Q, K); boxes: (Q, 4) cxcywh in [0, 1]; size: (height, width) that boxes are scaled to.
        k: how many to keep, at most Q * K.

    Returns:
        scores (N,), labels (N,), boxes (N, 4) xyxy in pixels, queries (N,); best first. Scores and boxes are float32.
    """
    values = logits.astype(np.float32, copy=False).ravel()
    best = np.argpartition(-values, min(k, len(values)) - 1)[:k]
    best = best[np.lexsort((best, -values[best]))]
    queries, labels = np.divmod(best, logits.shape[1])
    scores = 0.5 + 0.5 * np.tanh(0.5 * values[best].astype(np.float64))  # the sigmoid, without overflow
    found = corners(boxes[queries].astype(np.float32, copy=False)) * np.float32((*size[::-1], *size[::-1]))
    return scores.astype(np.float32), labels, found, queries


def corners(boxes: np.ndarray) -> np.ndarray:
    """(..., 4) cxcywh -> xyxy: `litedetr.boxes.cxcywh_to_xyxy` where there is no PyTorch."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate((centre - half, centre + half), axis=-1)


def class_nms(boxes: np.ndarray, labels: np.ndarray, nms_iou: float | None) -> np.ndarray:
    """Non-maximum suppression within each class: those stay whose IoU with every better one that stays is at most `nms_iou`.

    Few decoder layers, trained for a short time, leave an object to several queries now and then.

    Args:
        boxes: (N, 4) xyxy, by falling score; labels: (N,); nms_iou: in (0, 1], None to keep all.

    Returns:
        (N,) bool.
    """
    if nms_iou is None or not len(boxes):
        return np.ones(len(boxes), bool)
    sides = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1).astype(np.float64)  # x, y, width, height
    order = np.arange(len(boxes), 0, -1, dtype=np.float32)
    keep = np.zeros(len(boxes), bool)
    keep[cv2.dnn.NMSBoxesBatched(sides, order, labels.astype(np.int32), 0.0, nms_iou)] = True
    return keep


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 4), (M, 4) xyxy -> (N, M) intersection over union; NaN of two empty boxes."""
    shared = (np.minimum(first[:, None, 2:], second[:, 2:]) - np.maximum(first[:, None, :2], second[:, :2])).clip(min=0).prod(-1)
    areas, others = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / (areas[:, None] + others - shared)
