"""What a sampling point reads: up to four cells of a level, each by its bilinear coefficient.

A point at x, y in [0, 1] of the padded image lies at x * width - 0.5, y * height - 0.5 in cells, whose centres are whole numbers.
Its four coefficients sum to 1; those of cells that do not exist read zeros, which is how attention leaves the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from litedetr import AttentionStep

Shape = tuple[int, int]
"""(height, width) of a level."""
Coefficient = Callable[[np.ndarray, int], np.ndarray]
"""Points (..., 2) in [0, 1] and their level's index -> (...): what each point's weight counts."""
BLOCK = 1024
"""Queries that are taken together: so many stay in the processor's cache."""


def weighted(step: AttentionStep, coefficient: Coefficient, levels: Iterable[int]) -> np.ndarray:
    """(Q, M, L) float32: the sum over a level's points of attention weight x coefficient; 0 for levels that are not asked for."""
    locations, weights = step.locations.float().numpy(), step.weights.float().numpy()
    sums = np.zeros(weights.shape[:3], dtype=np.float32)
    for level in levels:
        for start in range(0, len(sums), BLOCK):
            rows = slice(start, start + BLOCK)
            for point in range(weights.shape[3]):  # point by point: NumPy is slow where the last axis is short
                sums[rows, :, level] += weights[rows, :, level, point] * coefficient(locations[rows, :, level, point], level)
    return sums


def inside(points: np.ndarray, shape: Shape) -> np.ndarray:
    """(..., 2) -> (...): the share of each point's footprint that lies on cells of the level, padding included."""
    x, y = _cells(points, shape)
    height, width = shape
    return np.clip(np.minimum(x + 1, width - x), 0, 1) * np.clip(np.minimum(y + 1, height - y), 0, 1)


def reading(points: np.ndarray, shape: Shape, cell: tuple[int, int]) -> np.ndarray:
    """(..., 2) -> (...): the coefficient with which each point reads the cell (column, row)."""
    x, y = _cells(points, shape)
    return np.maximum(1 - np.abs(x - cell[0]), 0) * np.maximum(1 - np.abs(y - cell[1]), 0)


def sample(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of a level at points, 0 outside.

    Args:
        maps: (N, H, W), one map for each of the first axis of `points`.
        points: (N, ..., 2).

    Returns:
        (N, ...)
    """
    height, width = maps.shape[1:]
    x, y = _cells(points, (height, width))
    which = np.arange(len(maps)).reshape(-1, *[1] * (x.ndim - 1))
    result = np.zeros_like(x)
    for column in (np.floor(x), np.floor(x) + 1):
        for row in (np.floor(y), np.floor(y) + 1):
            there = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = np.clip(row, 0, height - 1).astype(int), np.clip(column, 0, width - 1).astype(int)
            coefficient = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            result += np.where(there, coefficient * maps[which, *place], 0)
    return result


def _cells(points: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape
    return points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
