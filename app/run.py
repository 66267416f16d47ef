"""Run: one photo that went through one model; plain data that every view reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from litedetr import Detections, DetectorConfig, Trace
from litedetr.cost import Cost


@dataclass(frozen=True)
class Run:
    """A finished run. Views read it and never change it.

    Attributes:
        id: unguessable, names the run in look-ups and links to its files.
        name: of the picture, for downloads.
        model: what the model is called.
        source: its id on the Hub, "" for the page's own model.
        picture: the photo as shown, a JPEG of at most `engine.SHOWN_SIDE` pixels a side.
        detections: every one that the model gave, down to score 0, with the trace.
        config, cost: of the model at this photo's size.
        example: name of the example picture, "" for a visitor's own.
    """

    id: str
    name: str
    model: str
    picture: bytes = field(repr=False)
    detections: Detections
    config: DetectorConfig
    cost: Cost
    example: str = ""
    source: str = ""

    @property
    def trace(self) -> Trace:
        return self.detections.trace

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photo in pixels."""
        return self.detections.photo_size

    @property
    def picture_url(self) -> str:
        """Where the page serves the picture, relative to itself."""
        return f"lite/run/{self.id}/photo.jpg"

    @property
    def nbytes(self) -> int:
        return len(self.picture) + self.trace.nbytes

    @property
    def step_names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.trace.steps)

    def threshold(self, chosen: float | None) -> float:
        """The visitor's threshold, or the model's own."""
        return self.config.threshold if chosen is None else chosen

    def shown(self, chosen: float | None) -> np.ndarray:
        """Indices of the detections at or above the threshold, best first."""
        return np.flatnonzero(self.detections.scores >= self.threshold(chosen))

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) in [0, 1] of the padded image -> the photo's pixels; points outside stay outside."""
        return self.trace.geometry.to_photo(np.asarray(points, dtype=np.float64))
