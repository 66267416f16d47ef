"""How much an average precision owes to the photographs it was measured on: the bootstrap (Efron 1979) over photographs.

Detections are matched with objects once; then photographs are drawn again with replacement, and the figure is made of what was
drawn. Several detectors measured on the same draws can be compared more closely than their figures alone allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from litedetr.training.evaluation import matched

RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads precision off."""


@dataclass(frozen=True)
class ClassRecord:
    """What became of one class' N detections, best first, at T overlaps, on I photographs.

    photo (N,) int; right, wrong (T, N) float, 0 or 1: neither where it lies on an ignore region; wanted (I,) float: objects.
    """

    photo: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    wanted: np.ndarray


def class_records(content: dict[str, Any], results: list[dict[str, Any]], image_ids: Sequence[int]) -> list[ClassRecord]:
    """Of COCO-format ``results`` against a COCO-format file's ``content``: a record of each class of which there is an object."""
    coco = matched(content, results, image_ids)
    limit, photos, areas = coco.params.maxDets[-1], coco.params.imgIds, len(coco.params.areaRng)
    place = {photo: index for index, photo in enumerate(image_ids)}
    records = []
    for k in range(len(coco.params.catIds)):
        start = k * areas * len(photos)  # the first area is "all"
        entries = [(place[item["image_id"]], item) for item in coco.evalImgs[start : start + len(photos)] if item is not None]
        wanted = np.zeros(len(photos))
        for photo, item in entries:
            wanted[photo] = np.count_nonzero(item["gtIgnore"] == 0)
        if not wanted.any():
            continue
        scores = np.concatenate([item["dtScores"][:limit] for _, item in entries])
        order = np.argsort(-scores, kind="mergesort")  # as COCO breaks ties
        owner = np.concatenate([np.full(len(item["dtScores"][:limit]), photo) for photo, item in entries])
        hit, ignored = (
            np.concatenate([item[key][:, :limit] for _, item in entries], axis=1)[:, order].astype(bool)
            for key in ("dtMatches", "dtIgnore")
        )
        right, wrong = ((kind & ~ignored).astype(float) for kind in (hit, ~hit))
        records.append(ClassRecord(owner[order].astype(int), right, wrong, wanted))
    return records


def average_precision(records: Sequence[ClassRecord], times: np.ndarray) -> float:
    """COCO's AP (0..1) where photograph i was drawn ``times[i]`` times; -1 where no object was drawn at all."""
    values = [_of_class(record, times) for record in records if (record.wanted * times).any()]
    return float(np.mean(values)) if values else -1.0


def _of_class(record: ClassRecord, times: np.ndarray) -> float:
    drawn = times[record.photo]
    right, wrong = np.cumsum(record.right * drawn, axis=1), np.cumsum(record.wrong * drawn, axis=1)  # (T, N)
    precision = right / np.maximum(right + wrong, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = right / (record.wanted * times).sum()
    total = 0.0
    for row, best in zip(recall, precision, strict=True):
        at = np.searchsorted(row, RECALLS, side="left")
        total += best[at[at < len(best)]].sum()
    return total / (len(RECALLS) * len(recall))


def resampled(detectors: Sequence[Sequence[ClassRecord]], rounds: int = 1000, seed: int = 0) -> np.ndarray:
    """(rounds, detectors) AP of several detectors, in each round on the same photographs, drawn with replacement."""
    photos = len(detectors[0][0].wanted)
    chance = np.random.default_rng(seed)
    draws = [np.bincount(chance.integers(photos, size=photos), minlength=photos) for _ in range(rounds)]
    return np.array([[average_precision(records, times) for records in detectors] for times in draws])
