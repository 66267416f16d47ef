"""Where tokens are: their indices run from the finest scale's, row after row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.run.run import Run
from litedetr.positions import level_slices
from litedetr.schedule import scale_name


@dataclass(frozen=True)
class TokenPlace:
    """A token's scale, its column and row there from 0, and the middle of its cell in the photo's pixels."""

    scale: str
    column: int
    row: int
    centre: tuple[float, float]


def token_place(run: Run, token: int) -> TokenPlace:
    """The place of a token.

    Raises:
        IndexError: there is no such token.
    """
    shapes = run.trace.spatial_shapes
    for level, tokens in enumerate(level_slices(shapes)):
        if tokens.start <= token < tokens.stop:
            height, width = shapes[level]
            row, column = divmod(token - tokens.start, width)
            x, y = run.to_photo(np.array([(column + 0.5) / width, (row + 0.5) / height]))
            return TokenPlace(scale_name(level, len(shapes)), column, row, (float(x), float(y)))
    raise IndexError(f"expected a token from 0 to {tokens.stop - 1}, got {token}")
