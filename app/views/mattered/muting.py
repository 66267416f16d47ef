"""Effects of muting parts of one query's attention on one object's score and box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from app.run.choice import QueryChoice, choose
from app.run.run import Run
from app.run.state import ViewState
from litedetr import Detector
from litedetr.boxes import iou
from litedetr.muting import contributions, rerun
from litedetr.output import LayerOutput


@dataclass(frozen=True)
class Outcome:
    """The object after something was muted: score of its class, box (xyxy in the photo's pixels), how far the box's centre moved
    in pixels, and the box's IoU with what it was."""

    score: float
    box: tuple[float, float, float, float]
    moved: float
    overlap: float


@dataclass(frozen=True)
class Part:
    """Muted things by name: their attention (for scales, the mean over heads), and what muting each changes in the score."""

    names: tuple[str, ...]
    weight: np.ndarray
    change: np.ndarray


@dataclass(frozen=True)
class Effects:
    """Of everything that can be muted at one step of one query.

    Attributes:
        score: of the object as it is.
        points: every point by name, "h3.S4.2"; parts: heads "h3" and scales "S4".
        outcomes: without each of these, by name, and without the whole "step".
        rho: Spearman's correlation of the points' weights and sizes of effect.
        muted: the outcome without all that the visitor muted; None for nothing.
    """

    score: float
    points: Part
    parts: Part
    outcomes: dict[str, Outcome]
    rho: float
    muted: Outcome | None = None


def named(head: int, scale: str, point: int) -> str:
    """A point's name from its head and point, counted from 0."""
    return f"h{head + 1}.{scale}.{point + 1}"


def followed(run: Run, state: ViewState) -> tuple[int, int, list[str]]:
    """The decoder query whose score and box are watched, its class, and keys of notes: the query that asks, the one that the
    token became, or the best detection where it became none."""
    chosen, notes = choose(run, state), []
    query = chosen.query
    if query is None:
        shown = run.shown(state.threshold)
        query = int(run.detections.queries[shown[0]]) if len(shown) else int(run.trace.logits[-1].amax(-1).argmax())
        notes.append("no_query")
    if chosen.kind == "token":
        notes.append("token")
    return query, int(run.trace.logits[-1, query].argmax()), notes


def all_effects(run: Run, state: ViewState, detector: Detector, report: Callable[[float], None]) -> Effects:
    """Every point, head and scale, and the whole step, muted in turn."""
    chosen = choose(run, state)
    parts = contributions(chosen.step, chosen.row)  # (M, L, P, d)
    M, L, P, _ = parts.shape
    scales = chosen.step.scales
    removed = torch.cat(
        (parts.flatten(0, 2), parts.sum((1, 2)), parts.sum((0, 2)), parts.sum((0, 1, 2))[None])
    )  # points, heads, scales, step
    outcomes = _outcomes(run, state, rerun(detector, run.trace, chosen.index, chosen.row, removed, report))
    score = as_it_is(run, state).score
    change = np.array([outcome.score - score for outcome in outcomes])
    weights = chosen.weights.astype(np.float64)
    names = tuple(named(head, scale, point) for head in range(M) for scale in scales for point in range(P))
    points = Part(names, weights.ravel(), change[: M * L * P])
    coarse_first = np.argsort(scales)
    order = np.r_[np.arange(M), M + coarse_first]
    others = tuple(np.array([*(f"h{head + 1}" for head in range(M)), *scales])[order])
    shares = np.r_[np.full(M, 1.0), weights.sum((0, 2)) / M][order]
    parts_ = Part(others, shares, change[M * L * P : -1][order])
    every = (*names, *(f"h{head + 1}" for head in range(M)), *scales, "step")
    by_name = dict(zip(every, outcomes, strict=True))
    return Effects(score, points, parts_, by_name, spearman(points.weight, np.abs(points.change)))


def muted(run: Run, state: ViewState, detector: Detector, effects: Effects) -> Effects:
    """The same with the outcome of all that the visitor muted together."""
    chosen = choose(run, state)
    removed = (contributions(chosen.step, chosen.row) * mask(chosen, state.mute)[..., None]).sum((0, 1, 2))[None]
    (outcome,) = _outcomes(run, state, rerun(detector, run.trace, chosen.index, chosen.row, removed))
    return replace(effects, muted=outcome)


def mask(chosen: QueryChoice, mute: tuple[str, ...]) -> Tensor:
    """(M, L, P): 1 where a point is muted."""
    scales = chosen.step.scales
    M, L, P = chosen.weights.shape
    off = torch.zeros(M, L, P)
    for part in mute:
        head, _, rest = part.partition(".")
        scale, _, point = rest.partition(".")
        if part == "step":
            off[:] = 1
        elif part in scales:
            off[:, scales.index(part)] = 1
        elif head.startswith("h") and int(head[1:]) <= M and not rest:
            off[int(head[1:]) - 1] = 1
        elif head.startswith("h") and int(head[1:]) <= M and scale in scales and int(point) <= P:
            off[int(head[1:]) - 1, scales.index(scale), int(point) - 1] = 1
    return off


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks, ties given their mean rank; 0 where one side is constant."""
    ranks = [_mean_ranks(values) for values in (a, b)]
    if min(rank.std() for rank in ranks) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def as_it_is(run: Run, state: ViewState) -> Outcome:
    """The object without anything muted."""
    query, label, _ = followed(run, state)
    box = _pixels(run, run.trace.boxes[-1, query])
    return Outcome(float(run.trace.logits[-1, query, label].float().sigmoid()), tuple(box.tolist()), 0.0, 1.0)


def _outcomes(run: Run, state: ViewState, output: LayerOutput) -> list[Outcome]:
    """The object in every variant: the same query where a decoder layer was changed; after a change in the encoder other tokens
    may become queries, and the one is taken whose IoU times score of the class is best."""
    query, label, _ = followed(run, state)
    before = torch.tensor(as_it_is(run, state).box)
    boxes = _pixels(run, output.boxes)  # (V, Q, 4)
    scores, overlaps = output.logits[..., label].sigmoid(), iou(boxes, before, eps=1e-9)  # (V, Q)
    if choose(run, state).kind == "token":
        places = (overlaps * scores).argmax(1)
    else:
        places = torch.full((len(boxes),), query)
    rows = torch.arange(len(boxes))
    found, middle = boxes[rows, places], (before[:2] + before[2:]) / 2
    moved = ((found[:, :2] + found[:, 2:]) / 2 - middle).norm(dim=-1)
    columns = (scores[rows, places], found, moved, overlaps[rows, places])
    return [Outcome(s, tuple(b), m, o) for s, b, m, o in zip(*(column.tolist() for column in columns), strict=True)]


def _pixels(run: Run, boxes: Tensor) -> Tensor:
    """cxcywh in [0, 1] of the photo -> xyxy in its pixels."""
    return torch.from_numpy(run.on_photo(boxes)).float()
