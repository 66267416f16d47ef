"""What a sampling point reads: up to four cells of a level, each by its bilinear coefficient.

A point at x, y in [0, 1] of the padded image lies at x * width - 0.5, y * height - 0.5 in cells, whose centres are whole numbers.
Its four coefficients sum to 1; those of cells that do not exist read zeros, which is how attention leaves the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from litedetr import AttentionStep
from litedetr.ops import reference

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
    """(N, H, W) values of a level and (N, ..., 2) points of each -> (N, ...) what is read there, 0 outside."""
    N, height, width = maps.shape
    tokens = torch.from_numpy(maps).double().reshape(N, height * width, 1, 1)
    places = torch.from_numpy(points).double().reshape(N, -1, 1, 1, 1, 2)
    return reference.sample(tokens, [(height, width)], places).numpy().reshape(points.shape[:-1])


def _cells(points: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape
    return points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
