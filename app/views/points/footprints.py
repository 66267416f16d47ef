"""Footprints: the attention of one query as what its points read, laid on one grid for all levels.

A point reads up to four cells of its level, each by its bilinear coefficient. So its weight is laid on these cells, at the
level's own stride, and every cell spreads what it got evenly over its own area. Nothing is rescaled: the grid sums to the
attention that stays on the picture, and what cells outside would have got is the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.run.choice import QueryChoice
from app.run.state import ViewState

Shape = tuple[int, int]
"""(height, width) of a level."""


@dataclass(frozen=True)
class Footprint:
    """Attention of one query, as the mean over the heads shown.

    Attributes:
        grid: (H, W) on the finest level's cells.
        inside: per scale shown, coarsest first: what lies on its cells.
        outside: what lies on no cell.
        hidden: what lies on scales that are not shown.
    """

    grid: np.ndarray
    inside: dict[str, float]
    outside: float
    hidden: float

    @property
    def total(self) -> float:
        """1, up to rounding."""
        return sum(self.inside.values()) + self.outside + self.hidden


def footprint(chosen: QueryChoice, state: ViewState) -> Footprint:
    """The footprint of a query in a state: of one head or the mean of all, without hidden scales."""
    heads = kept_heads(chosen, state)
    weights = chosen.weights[heads].astype(np.float64) / heads.sum()
    locations = chosen.locations[heads].astype(np.float64)
    shapes = chosen.step.spatial_shapes
    grid, inside, outside, hidden = np.zeros(shapes[0]), {}, 0.0, 0.0
    for level in reversed(range(len(shapes))):
        scale = chosen.step.scales[level]
        given = weights[:, level]
        if scale in state.hidden:
            hidden += float(given.sum())
            continue
        cells = splat(locations[:, level].reshape(-1, 2), given.ravel(), shapes[level])
        inside[scale] = float(cells.sum())
        outside += float(given.sum()) - inside[scale]
        grid += regrid(cells, shapes[0])
    return Footprint(grid, inside, outside, hidden)


def kept_heads(chosen: QueryChoice, state: ViewState) -> np.ndarray:
    """(M,) which heads are shown: all where the state names none, or one that is not there."""
    heads = np.arange(len(chosen.weights))
    kept = heads == (state.head or 0) - 1
    return kept if kept.any() else np.ones(len(heads), dtype=bool)


def splat(points: np.ndarray, weights: np.ndarray, shape: Shape) -> np.ndarray:
    """(N, 2) in [0, 1] and (N,) -> (h, w): every weight on the cells that its point reads; what falls outside is lost."""
    height, width = shape
    x, y = points[:, 0] * width - 0.5, points[:, 1] * height - 0.5
    cells = np.zeros(shape)
    left, top = np.floor(x), np.floor(y)
    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            there = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = row[there].astype(int), column[there].astype(int)
            np.add.at(cells, place, (weights * across * down)[there])
    return cells


def regrid(cells: np.ndarray, shape: Shape) -> np.ndarray:
    """(h, w) -> `shape`: every cell's amount spread evenly over its area, so that the sum stays."""
    down, across = (_overlap(old, new) for old, new in zip(cells.shape, shape, strict=True))
    return down @ cells @ across.T


def _overlap(old: int, new: int) -> np.ndarray:
    """(new, old): which share of each of `old` equal parts of a line lies in each of `new` equal parts."""
    starts, ends = np.arange(new)[:, None] / new, np.arange(1, new + 1)[:, None] / new
    first, last = np.arange(old) / old, np.arange(1, old + 1) / old
    return np.clip(np.minimum(ends, last) - np.maximum(starts, first), 0, None) * old
