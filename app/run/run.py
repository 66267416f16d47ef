"""Run: one photo that went through one model; plain data that every view reads."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from litedetr import Detections, DetectorConfig, Trace
from litedetr.cost import Cost
from litedetr.detections import corners
from litedetr.families import Family, family_of
from litedetr.guests.detector import GuestConfig
from litedetr.lru import ByteLRU
from litedetr.steps import LightStep

EXTRAS_BYTES = 192 * 1024**2


def bytes_of(value: Any) -> int:
    """About how many bytes a value holds: arrays, tensors and texts in lists, tuples, dicts and dataclasses."""
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, np.ndarray | Trace):
        return value.nbytes
    if isinstance(value, LightStep):  # the run's own
        return 32
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return 64 + sum(bytes_of(key) + bytes_of(part) for key, part in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return 64 + sum(map(bytes_of, value))
    if is_dataclass(value) and not isinstance(value, type):
        return 64 + sum(bytes_of(getattr(value, each.name)) for each in fields(value))
    return 32


class Extras(ByteLRU):
    """What views computed from a run and keep with it."""

    def __init__(self, limit: int = EXTRAS_BYTES):
        super().__init__(limit, bytes_of)


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
        photo: as it came, so that other models can be shown the same pixels: the encoded file, or an RGB array.
        example: name of the example picture, "" for a visitor's own.
        spared: what was done for want of memory: "smaller" (the photo had half its size), "cpu", or "" for nothing.
        extras: what views computed from it.
    """

    id: str
    name: str
    model: str
    picture: bytes = field(repr=False)
    detections: Detections
    config: DetectorConfig | GuestConfig
    cost: Cost
    photo: bytes | np.ndarray = field(repr=False, compare=False)
    example: str = ""
    source: str = ""
    spared: str = ""
    extras: Extras = field(default_factory=Extras, init=False, repr=False, compare=False)

    @property
    def trace(self) -> Trace:
        return self.detections.trace

    @property
    def own(self) -> bool:
        """Whether a model of this project made it, and not one of another code base."""
        return isinstance(self.config, DetectorConfig)

    @property
    def family(self) -> Family | None:
        """The model's; None of another code base."""
        return family_of(self.config) if self.own else None

    @property
    def tokens_tell_classes(self) -> bool:
        """Whether the encoder's tokens are ranked by their best class, and not by "an object" or not at all."""
        return self.family is not None and self.family.tokens_tell_classes and self.trace.selected_tokens is not None

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
        return self._own_bytes + self.extras.nbytes

    @cached_property
    def _own_bytes(self) -> int:
        return len(self.picture) + bytes_of(self.photo) + self.trace.nbytes

    @cached_property
    def layers(self) -> tuple[int, int]:
        """Which layers its light trace needs, and their bytes; runs of one model share them."""
        replay = self.trace.replay
        return (0, 0) if replay is None else (id(replay.encoder), replay.layer_bytes)

    @property
    def step_names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.trace.steps)

    def threshold(self, chosen: float | None) -> float:
        """The visitor's threshold, or the model's own."""
        return self.config.threshold if chosen is None else chosen

    def shown(self, chosen: float | None, classes: tuple[int, ...] = ()) -> np.ndarray:
        """Indices of the detections at or above the threshold, best first; of some classes alone where any are given."""
        kept = self.detections.scores >= self.threshold(chosen)
        if classes:
            kept = kept & np.isin(self.detections.labels, classes)
        return np.flatnonzero(kept)

    def on_photo(self, boxes: Tensor) -> np.ndarray:
        """(..., 4) cxcywh in [0, 1] of the photo -> xyxy in its pixels, float64."""
        height, width = self.size
        return corners(boxes.double().numpy()) * [width, height, width, height]

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) in [0, 1] of the padded image -> the photo's pixels; points outside stay outside."""
        return self.trace.geometry.to_photo(np.asarray(points, dtype=np.float64))
