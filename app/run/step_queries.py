"""The queries of one step: tokens with their cells, or objects with the boxes that they asked with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.i18n import say
from app.run.run import Run
from app.theme import class_colour, scale_colour
from litedetr import AttentionStep


@dataclass(frozen=True)
class StepQueries:
    """All Q queries of a step, by their rows.

    Attributes:
        boxes: (Q, 4) xyxy in the photo's pixels: a token's cell, or the box that the object had before the layer.
        levels: (Q,) a token's level, finest = 0; None for objects.
        cells: (Q, 2) a token's column and row; None for objects.
        guesses: (Q,) the best class of each object after the layer, and
        scores: (Q,) its score; None for tokens.
    """

    run: Run
    step: AttentionStep
    boxes: np.ndarray
    levels: np.ndarray | None = None
    cells: np.ndarray | None = None
    guesses: np.ndarray | None = None
    scores: np.ndarray | None = None

    @property
    def centres(self) -> np.ndarray:
        """(Q, 2) in the photo's pixels."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def scale(self, row: int) -> str | None:
        """A token's scale; None for an object."""
        return None if self.levels is None else self.step.scales[self.levels[row]]

    def colour(self, row: int) -> str:
        """The token's scale's, or the object's best class'."""
        scale = self.scale(row)
        return class_colour(int(self.guesses[row])) if scale is None else scale_colour(scale)

    def name(self, row: int, lang: str) -> str:
        """How a table calls it."""
        if self.levels is None:
            name, score = self.run.config.names[int(self.guesses[row])], float(self.scores[row])
            return say(lang, "step_query.object", query=row, name=name, score=f"{score:.2f}")
        column, line = (int(value) for value in self.cells[row])
        return say(lang, "step_query.token", scale=self.scale(row), column=column, row=line)

    def link(self, row: int) -> dict[str, str]:
        """State parameters that select it."""
        if self.levels is None:
            return {"q": str(row), "at": "", "scale": ""}
        height, width = self.run.size
        x, y = np.clip(self.centres[row] / (width, height), 0, 1)
        return {"q": "", "at": f"{x:.4f},{y:.4f}", "scale": self.scale(row)}

    def holding(self, x: float, y: float) -> np.ndarray:
        """(Q,) bool: whose cell or box holds a point of the photo, in its pixels."""
        x1, y1, x2, y2 = self.boxes.T
        return (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)


def queries_of(run: Run, step: AttentionStep) -> StepQueries:
    """The queries of a step of the run's trace."""
    return _objects(run, step) if step.kind == "decoder" else _tokens(run, step)


def level_grid(run: Run, shape: tuple[int, int]) -> tuple[float, float]:
    """Width and height of a level's cells in the photo's pixels; the first begins in the photo's corner."""
    height, width = shape
    x, y = run.to_photo(np.array([1 / width, 1 / height]))
    return float(x), float(y)


def _tokens(run: Run, step: AttentionStep) -> StepQueries:
    boxes, levels, cells = [], [], []
    for level in step.query_levels:
        height, width = step.spatial_shapes[level]
        rows, columns = np.divmod(np.arange(height * width), width)
        place = np.stack((columns, rows), axis=1)
        size = np.array(level_grid(run, (height, width)))
        boxes.append(np.concatenate((place * size, (place + 1) * size), axis=1))
        levels.append(np.full(height * width, level))
        cells.append(place)
    return StepQueries(run, step, np.concatenate(boxes), levels=np.concatenate(levels), cells=np.concatenate(cells))


def _objects(run: Run, step: AttentionStep) -> StepQueries:
    layer = run.trace.decoder_steps.index(step)
    scores, guesses = run.trace.logits[layer].float().sigmoid().max(dim=1)
    return StepQueries(run, step, run.on_photo(run.trace.boxes[layer]), guesses=guesses.numpy(), scores=scores.numpy())
