"""What a detector's scores mean: the threshold of best F1, how often a score is right, and how many boxes are doubled."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask
from safetensors.torch import load_file, save_file

from litedetr.training.charts import BLUE, Line, Panel, svg

RIGHT = 0.5
"""IoU with an object of its class from which on a detection is right."""
DOUBLED = 0.7
"""IoU with a better detection of its class from which on a detection is a near-duplicate."""
LEAST_PRECISION = 0.65
"""Share of the detections at or above the default threshold that are right, if any threshold reaches it: who looks at a picture
minds a wrong box more than a missing one."""
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Detections whose scores lie in ``low`` … ``high``: how many, their mean score, and the share of them that are right."""

    low: float
    high: float
    count: int
    score: float
    right: float


@dataclass(frozen=True)
class Rescaling:
    """What makes a score the share of detections that are right: class logits times ``scale`` plus ``shift`` (Platt 1999)."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """(N,) scores -> (N,) scores."""
        return 1 / (1 + np.exp(-(self.scale * _logits(scores) + self.shift)))


@dataclass(frozen=True)
class Operating:
    """A threshold, and the share of the detections at or above it that are right, and of the objects that they find."""

    threshold: float = 1.0
    precision: float = 0.0
    recall: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Over all classes together, at IoU 0.5.

    threshold: the score of best F1; f1, precision, recall: there; bins: ten bins of score, empty ones left out;
    error: expected calibration error, the bins' |mean score - share right| weighted by their counts, of detections with a score
    of at least 0.05 (below lie nearly all of the ones kept, and hardly anybody looks); doubled: share of the detections at or
    above the threshold that are near-duplicates of a better one; rescaling: what would make the scores mean more; rescaled: the
    same figures after it, of the half of the pictures that it was not fitted on (``held_out``; of all of them where a half has
    nothing right), its default threshold chosen on all;
    default: the threshold to show detections by, that of best F1 or a higher one, from which on precision is at least
    `LEAST_PRECISION`.
    """

    threshold: float
    f1: float
    precision: float
    recall: float
    bins: tuple[Bin, ...]
    error: float
    doubled: float
    rescaling: Rescaling = Rescaling()
    rescaled: Calibration | None = None
    default: Operating = Operating()
    held_out: bool = False

    def table(self) -> str:
        """For reading: the threshold, then the bins."""
        lines = [
            f"best F1 {self.f1:.3f} at score {self.threshold:.2f} (precision {self.precision:.2f}, recall {self.recall:.2f})",
            f"calibration error {self.error:.3f}, near-duplicates at that score {100 * self.doubled:.1f} %",
            f"default threshold {self.default.threshold:.2f} (precision {self.default.precision:.2f}, "
            f"recall {self.default.recall:.2f})",
            "score        detections  mean score  share right",
        ]
        lines += [f"{b.low:.1f} to {b.high:.1f}   {b.count:10d}  {b.score:10.2f}  {b.right:11.2f}" for b in self.bins]
        if self.rescaled is not None:
            halves = self.rescaled.held_out
            where = "fitted on every second picture, on the others" if halves else "on the pictures it is fitted on"
            at = self.rescaled.default
            lines.append(
                f"with class logits times {self.rescaling.scale:.3f} {self.rescaling.shift:+.3f} (--calibrate does that; "
                f"{where}): calibration error {self.rescaled.error:.3f}, default threshold {at.threshold:.2f} (precision "
                f"{at.precision:.2f}, recall {at.recall:.2f})"
            )
        return "\n".join(lines)


def calibrate(content: dict[str, Any], results: Sequence[dict[str, Any]], image_ids: Sequence[int]) -> Calibration:
    """From a COCO-format file's ``content`` and COCO-format ``results`` on its pictures ``image_ids``.

    A detection is right where it is the best one left for an object of its class at IoU 0.5; one that lies at least half in
    a crowd region of its class counts for nothing.
    """
    chosen = set(image_ids)
    truth, crowds, found = (defaultdict(list) for _ in range(3))
    for entry in content["annotations"]:
        if entry["image_id"] in chosen:
            (crowds if entry.get("iscrowd") else truth)[entry["image_id"], entry["category_id"]].append(entry["bbox"])
    for entry in results:
        found[entry["image_id"], entry["category_id"]].append((entry["score"], entry["bbox"]))
    judged = {key: _judge(items, truth.get(key, []), crowds.get(key, [])) for key, items in found.items()}

    def of(images: set[int]) -> _Judged:
        parts = [part for (image, _), part in judged.items() if image in images]
        scores, right, doubled = (np.concatenate([part[i] for part in parts] or [np.zeros(0)]) for i in range(3))
        objects = sum(len(boxes) for (image, _), boxes in truth.items() if image in images)
        return _Judged(scores, right.astype(bool), doubled.astype(bool), objects)

    every, fitted, other = of(chosen), of(set(image_ids[::2])), of(set(image_ids[1::2]))
    held_out = bool(fitted.right.any() and other.right.any())
    if not held_out:
        fitted = other = every
    rescaling = fit_rescaling(fitted.scores, fitted.right)
    whole, other = (replace(part, scores=rescaling(part.scores)) for part in (every, other))
    default = _operating(other, _figures(whole).default.threshold)  # of all: half of a small set has too few to choose by
    rescaled = replace(_figures(other), default=default, held_out=held_out)
    return replace(_figures(every), rescaling=rescaling, rescaled=rescaled)


@dataclass(frozen=True)
class _Judged:
    """Detections: their scores, whether right, whether doubled (N,); objects: how many there were to find."""

    scores: np.ndarray
    right: np.ndarray
    doubled: np.ndarray
    objects: int


def fit_rescaling(scores: np.ndarray, right: np.ndarray) -> Rescaling:
    """The logistic regression of ``right`` (N,) on the logits of ``scores`` (N,), with Platt's smoothed targets.

    None at all (scale 1, shift 0) where nothing or everything is right, or where higher scores are wrong more often.
    """
    hits = int(right.sum())
    if hits in (0, len(right)):
        return Rescaling()
    misses = len(right) - hits
    wanted = torch.from_numpy(np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2)))
    logits, line = torch.from_numpy(_logits(scores)), torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(line[0] * logits + line[1], wanted)
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    scale, shift = line.tolist()
    return Rescaling(scale, shift) if scale > 0 and math.isfinite(scale + shift) else Rescaling()


def _logits(scores: np.ndarray) -> np.ndarray:
    scores = np.clip(np.asarray(scores, np.float64), 1e-9, 1 - 1e-9)
    return np.log(scores / (1 - scores))


def _figures(found: _Judged) -> Calibration:
    scores, right = found.scores, found.right
    threshold, f1, precision, recall = _best_f1(scores, right, found.objects)
    bins = _bins(scores, right)
    seen = _bins(scores[scores >= 0.05], right[scores >= 0.05])
    total = max(sum(b.count for b in seen), 1)
    shown = scores >= threshold
    return Calibration(
        threshold=threshold,
        f1=f1,
        precision=precision,
        recall=recall,
        bins=bins,
        error=sum(b.count * abs(b.score - b.right) for b in seen) / total,
        doubled=float(found.doubled[shown].mean()) if shown.any() else 0.0,
        default=_default(found, threshold),
    )


def _default(found: _Judged, lowest: float) -> Operating:
    """The lowest threshold from `lowest` on whose precision is at least `LEAST_PRECISION`; `lowest` where there is none."""
    order = np.argsort(-found.scores, kind="stable")
    scores, hits = found.scores[order], np.cumsum(found.right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    places = np.flatnonzero(np.append(scores[1:] < scores[:-1], True)[: len(scores)] & (scores >= lowest))
    good = places[precision[places] >= LEAST_PRECISION]
    if not len(places):
        return Operating()
    place = good[-1] if len(good) else places[-1]
    return Operating(float(scores[place]), float(precision[place]), float(hits[place] / max(found.objects, 1)))


def _operating(found: _Judged, threshold: float) -> Operating:
    """What a threshold that was chosen elsewhere gives here."""
    shown = found.scores >= threshold
    hits = int(found.right[shown].sum())
    return Operating(threshold, hits / max(int(shown.sum()), 1), hits / max(found.objects, 1))


def _judge(items: list[tuple[float, list[float]]], truth: list, crowds: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture's detections of one class -> scores, whether right, whether doubled, best first; those in crowds left out."""
    items = sorted(items, key=lambda item: -item[0])
    scores, boxes = np.array([score for score, _ in items]), [box for _, box in items]
    right, doubled, ignored = (np.zeros(len(items), bool) for _ in range(3))
    overlap, free = _iou(boxes, truth), np.ones(len(truth), bool)
    among, inside = _iou(boxes, boxes), _iou(boxes, crowds, crowd=True)
    for place in range(len(items)):
        candidates = np.where(free, overlap[place], 0.0)
        if len(truth) and candidates.max() >= RIGHT:
            right[place] = True
            free[candidates.argmax()] = False
        elif len(crowds) and inside[place].max() >= RIGHT:
            ignored[place] = True
        doubled[place] = place > 0 and among[place, :place].max() >= DOUBLED
    return scores[~ignored], right[~ignored], doubled[~ignored]


def _iou(boxes: list[list[float]], others: list[list[float]], crowd: bool = False) -> np.ndarray:
    """(N, R) of boxes as x, y, width, height; with `crowd` the share of each box that lies in each of the others."""
    if not others:
        return np.zeros((len(boxes), 0))
    return mask.iou(np.array(boxes, np.float64), np.array(others, np.float64), [crowd] * len(others))


def _best_f1(scores: np.ndarray, right: np.ndarray, objects: int) -> tuple[float, float, float, float]:
    """The score of best F1, and F1, precision and recall there; 1 and zeros without anything right."""
    if not right.any():
        return 1.0, 0.0, 0.0, 0.0
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + objects)
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are kept or dropped together
    best = int(np.where(last, f1, -1.0).argmax())
    return float(scores[best]), float(f1[best]), float(hits[best] / (best + 1)), float(hits[best] / objects)


def _bins(scores: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    kept = ((number, place == number) for number in range(BINS))
    return tuple(
        Bin(number / BINS, (number + 1) / BINS, int(rows.sum()), float(scores[rows].mean()), float(right[rows].mean()))
        for number, rows in kept
        if rows.any()
    )


def reliability_svg(calibration: Calibration) -> str:
    """The bins as a picture: share right against mean score, the diagonal where both are equal, counts as numbers."""
    points = [(b.score, b.right) for b in calibration.bins]
    notes = [(b.score, b.right, f"{b.count:,}") for b in calibration.bins]
    panel = Panel("", "mean score", "share right (IoU 0.5)", 1.0, 1.0, [Line("", points, BLUE, marks=True)], notes, diagonal=True)
    return svg([panel], "Reliability: share right against score")


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Make a weights folder's scores mean what they say, and its threshold the default one (up to two places).

    The rescaling goes into the class heads of model.safetensors, and the order of detections stays; config.json gets the
    threshold, reliability.svg shows the scores as they are now.
    """
    now = calibration.rescaled or calibration
    file, rescaling = folder / "model.safetensors", calibration.rescaling
    weights = load_file(file)
    for key in (key for key in weights if key.startswith("heads.classes.")):
        changed = weights[key].float() * rescaling.scale + (rescaling.shift if key.endswith("bias") else 0.0)
        weights[key] = changed.to(weights[key].dtype)
    save_file(weights, file, metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"threshold": math.ceil(100 * now.default.threshold) / 100}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "reliability.svg").write_text(reliability_svg(now), encoding="utf-8")
