"""The heaviest sampling points of all queries of a step on one scale, ranked by attention weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from app.run.progress import report_stages
from app.run.run import Run
from litedetr import AttentionStep, Detector

MOST = 2000
"""More points would hide the photo."""


@dataclass(frozen=True)
class Samples:
    """N samples of a scale, heaviest first, and what they were ranked among.

    Attributes:
        x, y: (N,) in the photo's pixels.
        weights: (N,) attention weights; all weights of one query and head sum to 1 over all scales.
        rows, heads, points: (N,) the query's row in the step, head and point from 0.
        count, total: samples of the scale, and the sum of their weights.
        curve: (N,) share of `total` that the first 1, 2, … N hold.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    heads: np.ndarray
    points: np.ndarray
    count: int
    total: float

    @property
    def curve(self) -> np.ndarray:
        return np.cumsum(self.weights, dtype=np.float64) / max(self.total, 1e-12)

    def first(self, n: int) -> Samples:
        """The n heaviest."""
        arrays = (self.x, self.y, self.weights, self.rows, self.heads, self.points)
        return Samples(*(values[:n] for values in arrays), count=self.count, total=self.total)


@dataclass(frozen=True)
class OtherModel:
    """The heaviest samples of a second model on the same photo.

    Attributes:
        name: how the page calls it.
        key_aware: whether its weights come from keys.
        encoder_steps: how many of its steps are the encoder's; they come first.
        samples: by step and scale, both in the trace's order.
    """

    name: str
    key_aware: bool
    encoder_steps: int
    samples: dict[str, dict[str, Samples]]

    def like(self, step: AttentionStep, scale: str) -> tuple[str, str, Samples]:
        """Step, scale and samples that stand for a step and scale of the run: those of the same name, or the last step of the
        same kind and the finest scale."""
        names = list(self.samples)
        if step.name not in names:
            last = names[-1] if step.kind == "decoder" else names[self.encoder_steps - 1]
        else:
            last = step.name
        found = self.samples[last]
        scale = scale if scale in found else next(iter(found))
        return last, scale, found[scale]


def rank(weights: np.ndarray, n: int) -> np.ndarray:
    """Indices of the n largest of a flat array, largest first.

    Equal weights are ordered by a fixed scramble of their indices, so that a part of many equal ones is spread over all of them
    and is always the same.
    """
    n = min(n, len(weights))
    limit = np.partition(weights, len(weights) - n)[len(weights) - n]
    above, ties = np.flatnonzero(weights > limit), np.flatnonzero(weights == limit)
    kept = ties[np.argsort(_scramble(ties), kind="stable")[: n - len(above)]]
    chosen = np.concatenate((above, kept))
    return chosen[np.lexsort((_scramble(chosen), -weights[chosen]))]


def heaviest(
    step: AttentionStep, level: int, to_photo: Callable[[np.ndarray], np.ndarray], n: int, uniform: bool = False
) -> Samples:
    """The n heaviest samples of a level.

    Args:
        to_photo: (..., 2) in [0, 1] of the padded image -> the photo's pixels.
        uniform: as if every sample had the same weight, 1 / (levels * points): what attention would be that ignores its keys.
    """
    queries, heads, levels, points = step.weights.shape
    weights = step.weights[:, :, level].float().numpy().ravel()
    if uniform:
        weights = np.full(weights.shape, 1 / (levels * points), dtype=np.float32)
    best = rank(weights, min(n, MOST))
    row, head, point = np.unravel_index(best, (queries, heads, points))
    places = to_photo(step.locations[:, :, level].reshape(-1, 2)[torch.from_numpy(best)].float().numpy())
    x, y = np.moveaxis(places, -1, 0)
    return Samples(x, y, weights[best], row, head, point, count=len(weights), total=float(weights.sum(dtype=np.float64)))


def other_model(run: Run, detector: Detector, name: str, report: Callable[[float, str], None]) -> OtherModel:
    """A second model's samples on the run's photo. `report` hears of each stage before it begins."""
    with report_stages(detector, report):
        trace = detector.predict(run.photo, threshold=0.0, trace=True).trace

    def to_photo(points: np.ndarray) -> np.ndarray:
        return trace.geometry.to_photo(points.astype(np.float64))

    steps = {
        step.name: {name: heaviest(step, level, to_photo, MOST) for level, name in enumerate(step.scales)} for step in trace.steps
    }
    return OtherModel(name, trace.steps[0].query is not None, len(trace.encoder_steps), steps)


def _scramble(indices: np.ndarray) -> np.ndarray:
    """Knuth's multiplicative hash: a fixed order in which neighbours lie far apart."""
    return (indices.astype(np.uint64) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
