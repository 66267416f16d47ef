"""Which models the page offers, and the few that are in memory."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from app.state import HUB_ID
from litedetr import Detector, DetectorConfig
from litedetr.weights import WeightsError

LIST = Path(__file__).with_suffix(".json")
IN_MEMORY = 2
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
        self._lock = threading.Lock()

    def get(self, source: str = "", progress: Callable[[int, int], None] | None = None, plain: bool = False) -> Detector:
        """A model, loaded where it is not in memory.

        Args:
            source: a Hub id; "" for the page's own model.
            progress: told (bytes done, bytes in all) while it is downloaded.
            plain: not optimized for inference, for what looks inside it.

        Raises:
            WeightsError: it cannot be loaded; the message says why.
        """
        source = source or self.own
        # Folders of this machine are nobody's business, and its token opens only what the page offers.
        if source != self.own and (not HUB_ID.match(source) or Path(source).exists()):
            raise WeightsError(f'expected a model\'s name on the Hub like "owner/name", got {source[:80]!r}: check the spelling.')
        trusted = source == self.own or source in (entry["id"] for entry in offered())
        with self._lock:
            if source not in self._loaded:
                self._make_room()
                told = progress if trusted else _limited(progress)
                loaded = Detector.from_pretrained(source, token=None if trusted else False, progress=told)
                # In bfloat16 outputs could not be rebuilt from the points to 1e-5.
                self._loaded[source] = loaded.optimize("float32"), loaded
            self._loaded.move_to_end(source)
            return self._loaded[source][plain]

    def _make_room(self) -> None:
        others = [source for source in self._loaded if source != self.own]
        while len(others) > IN_MEMORY - 2:
            del self._loaded[others.pop(0)]

    def __contains__(self, source: str) -> bool:
        return source in self._loaded


def _limited(progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
    """`progress`, and an end to a download that is too large."""

    def told(done: int, total: int) -> None:
        if total > LARGEST:
            raise WeightsError(
                f"expected a model of at most {LARGEST / 1e6:.0f} MB, got {total / 1e6:.0f} MB: choose a smaller one, or raise "
                "LITEDETR_LARGEST_MB where the page runs."
            )
        if progress is not None:
            progress(done, total)

    return told
