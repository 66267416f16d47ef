"""Where a token is, from its index among the tokens of all scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.run.run import Run
from litedetr.schedule import scale_name


@dataclass(frozen=True)
class TokenPlace:
    """A token's scale, its column and row there from 0, and the middle of its cell in the photo's pixels."""

    scale: str
    column: int
    row: int
    centre: tuple[float, float]


def token_place(run: Run, token: int) -> TokenPlace:
    """Tokens are counted from the finest scale's, row after row."""
    shapes, first = run.trace.spatial_shapes, 0
    for level, (height, width) in enumerate(shapes):
        if first <= token < first + height * width:
            row, column = divmod(token - first, width)
            x, y = run.to_photo(np.array([(column + 0.5) / width, (row + 0.5) / height]))
            return TokenPlace(scale_name(level, len(shapes)), column, row, (float(x), float(y)))
        first += height * width
    raise IndexError(f"expected a token from 0 to {first - 1}, got {token}")
