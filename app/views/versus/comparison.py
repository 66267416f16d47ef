"""The same photo through two encoders: who found what, in which time, and which detections are the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np
import torch

from app.run.run import Run
from litedetr import Detector, DetectorConfig, EncoderSchedule
from litedetr import image as photos
from litedetr.boxes import pairwise_iou
from litedetr.cost import gmacs
from litedetr.timing import take_turns

SAME = 0.5
"""IoU from which on two detections of one class are the same."""
TURNS = 3
"""Of each model, after one that is not counted."""


@dataclass(frozen=True)
class ModelResult:
    """What one model made of the photo.

    Attributes:
        name: of the model; schedule: of its encoder.
        boxes: (N, 4) xyxy in the photo's pixels; scores (N,), best first; names: of the classes.
        threshold: its own.
        gmacs, encoder_gmacs: of the whole model and of its encoder, at its own input size.
        milliseconds, encoder_ms: medians, measured in turns with the other.
    """

    name: str
    schedule: str
    boxes: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    threshold: float
    gmacs: float
    encoder_gmacs: float
    milliseconds: float
    encoder_ms: float

    def above(self, threshold: float | None) -> np.ndarray:
        """Indices of the detections at or above a threshold, its own if None."""
        return np.flatnonzero(self.scores >= (self.threshold if threshold is None else threshold))


@torch.inference_mode()
def compare(
    run: Run, contestants: dict[str, tuple[Detector, str]], report: Callable[[float, str], None]
) -> dict[str, ModelResult]:
    """Each model on the photo, in turns.

    Args:
        contestants: by side, the detector and what it is called.
    """
    picture = photos.open_small(run.photo)
    found, encoder = {}, {side: [] for side in contestants}

    def predict(side: str) -> None:
        detector, _ = contestants[side]
        with _clock(detector.encoder, encoder[side]):
            found[side] = detector.predict(picture, threshold=0.0)

    runs = {side: partial(predict, side) for side in contestants}
    whole = take_turns(runs, TURNS, shortest=0, report=lambda share: report(share, ""))
    results = {}
    for side, (detector, name) in contestants.items():
        config = _as_run(detector)
        cost = gmacs(config, detector.prepare(picture)[2].padded)
        results[side] = ModelResult(
            name=name,
            schedule=config.schedule,
            boxes=found[side].boxes,
            scores=found[side].scores,
            names=tuple(found[side].names),
            threshold=config.threshold,
            gmacs=cost.total,
            encoder_gmacs=cost.encoder,
            milliseconds=median(whole[side].wall),
            encoder_ms=median(encoder[side][1:]),
        )
    return results


def every_scale(detector: Detector) -> Detector:
    """The same detector, with the same weights, whose encoder layers update every scale."""
    levels = tuple(range(detector.config.levels))
    return detector.with_encoder(
        detector.encoder.with_steps(replace(step, query_levels=levels) for step in detector.encoder.steps)
    )


def _as_run(detector: Detector) -> DetectorConfig:
    """The config, for counting: the full schedule where the steps were changed by `every_scale`."""
    levels = detector.config.levels
    if all(len(step.query_levels) == levels for step in detector.encoder.steps):
        schedule = str(EncoderSchedule.full(levels, len(detector.encoder.steps)))
        return replace(detector.config, schedule=schedule, low_ffn=None)
    return detector.config


def matched(left: ModelResult, right: ModelResult, threshold: float | None) -> list[tuple[int | None, int | None, float]]:
    """Pairs (left, right, IoU) of detections that are the same: of one class, by IoU, the best first; then those of one side
    alone, with None for the other and IoU 0."""
    ours, theirs = left.above(threshold), right.above(threshold)
    overlap = pairwise_iou(torch.from_numpy(left.boxes[ours]).double(), torch.from_numpy(right.boxes[theirs]).double())
    same = np.array([[left.names[i] == right.names[j] for j in theirs] for i in ours], bool).reshape(len(ours), len(theirs))
    overlap = np.where(same, np.nan_to_num(overlap.numpy()), 0.0)
    pairs: list[tuple[int | None, int | None, float]] = []
    free = overlap.copy()
    while free.size and free.max() >= SAME:
        i, j = np.unravel_index(free.argmax(), free.shape)
        pairs.append((int(ours[i]), int(theirs[j]), float(overlap[i, j])))
        free[i], free[:, j] = 0.0, 0.0
    pairs.sort(key=lambda pair: -left.scores[pair[0]])
    done = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    pairs += [(int(i), None, 0.0) for i in ours if i not in done[0]]
    return pairs + [(None, int(j), 0.0) for j in theirs if j not in done[1]]


@contextmanager
def _clock(module: torch.nn.Module, times: list[float]) -> Iterator[None]:
    """Adds the wall-clock, in milliseconds, of every call of a module."""
    begun = []
    hooks = [
        module.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter())),
        module.register_forward_hook(lambda *_: times.append(1000 * (time.perf_counter() - begun.pop()))),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
