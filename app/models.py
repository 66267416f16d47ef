"""Which models the page offers, and the few that are in memory."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from app.loading import Loading
from app.state import HUB_ID
from litedetr import Detector, DetectorConfig
from litedetr.weights import Progress, WeightsError

LIST = Path(__file__).with_suffix(".json")
IN_MEMORY = 2
AT_ONCE = 2
"""So many models come from the Hub at a time: one that is slow does not keep the next."""
LARGEST = int(os.environ.get("LITEDETR_LARGEST_MB", "1000")) * 10**6
"""Bytes of weights that a visitor may have downloaded."""

_FAMILIES = {"dino": "DINO", "deformable_detr": "Deformable DETR", "h_detr": "H-DETR"}
_BACKBONES = {"mobilenetv2": "MobileNetV2", "resnet50": "ResNet-50", "swin_tiny": "Swin-T"}


def offered() -> list[dict[str, str]]:
    """``{"id", "name"}`` of the models in models.json, then those of the environment variable LITEDETR_MODELS:
    Hub ids divided by commas, each with ``=a name`` behind it or none."""
    entries = json.loads(LIST.read_text(encoding="utf-8"))
    for text in os.environ.get("LITEDETR_MODELS", "").split(","):
        name, _, title = (part.strip() for part in text.partition("="))
        if HUB_ID.match(name):
            entries.append({"id": name, "name": title})
    return list({entry["id"]: entry for entry in entries}.values())


def describe(config: DetectorConfig) -> str:
    """How the page calls a model."""
    lite = not config.encoder_schedule.is_full
    family = ("Lite-" if lite else "") + _FAMILIES[config.family]
    backbone = _BACKBONES.get(config.backbone, config.backbone)
    return " · ".join([family, backbone, *([config.schedule] if lite else [])])


class Models:
    """At most `IN_MEMORY` models: the page's own, which stays, and the last ones asked for.

    Args:
        own: source of the page's own model: "embedded", a folder or a Hub id.
    """

    def __init__(self, own: str):
        self.own = own
        self._loaded: OrderedDict[str, tuple[Detector, Detector]] = OrderedDict()
        self._loading: dict[str, Loading[tuple[Detector, Detector]]] = {}
        self._slots = threading.Semaphore(AT_ONCE)
        self._lock = threading.Lock()

    def get(self, source: str = "", progress: Progress | None = None, plain: bool = False) -> Detector:
        """A model, loaded where it is not in memory.

        Args:
            source: a Hub id; "" for the page's own model.
            progress: told (bytes done, bytes in all) while it is downloaded; what it raises ends the wait, and the download where
                nobody else waits for it.
            plain: not optimized for inference, for what looks inside it.

        Raises:
            WeightsError: it cannot be loaded; the message says why.
        """
        source = source or self.own
        # Folders of this machine are nobody's business, and its token opens only what the page offers.
        if source != self.own and (not HUB_ID.match(source) or Path(source).exists()):
            raise WeightsError(f'expected a model\'s name on the Hub like "owner/name", got {source[:80]!r}: check the spelling.')
        with self._lock:
            if source in self._loaded:
                self._loaded.move_to_end(source)
                return self._loaded[source][plain]
            if source not in self._loading:
                slot = nullcontext() if source == self.own else self._slots
                self._loading[source] = Loading(partial(self._load, source), slot)
            loading = self._loading[source]
            loading.join()
        try:
            return loading.result(progress or _silent)[plain]
        finally:
            with self._lock:
                loading.leave()
                if not loading.waiting and self._loading.get(source) is loading:
                    del self._loading[source]

    def _load(self, source: str, progress: Progress) -> tuple[Detector, Detector]:
        trusted = source == self.own or source in (entry["id"] for entry in offered())
        with self._lock:
            self._make_room()
        told = progress if trusted else _limited(progress)
        loaded = Detector.from_pretrained(source, token=None if trusted else False, progress=told)
        # In bfloat16 outputs could not be rebuilt from the points to 1e-5.
        pair = loaded.optimize("float32"), loaded
        with self._lock:
            self._make_room()
            self._loaded[source] = pair
        return pair

    def _make_room(self) -> None:
        others = [source for source in self._loaded if source != self.own]
        while len(others) > IN_MEMORY - 2:
            del self._loaded[others.pop(0)]

    def __contains__(self, source: str) -> bool:
        return source in self._loaded


def _silent(done: int, total: int) -> None:
    """Nobody listens."""


def _limited(progress: Progress) -> Progress:
    """`progress`, and an end to a download that is too large."""

    def told(done: int, total: int) -> None:
        if total > LARGEST:
            raise WeightsError(
                f"expected a model of at most {LARGEST / 1e6:.0f} MB, got {total / 1e6:.0f} MB: choose a smaller one, or raise "
                "LITEDETR_LARGEST_MB where the page runs."
            )
        progress(done, total)

    return told
