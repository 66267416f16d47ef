"""The models that the page offers, by name alone: views name them, the engine loads them."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

from app.i18n import say
from app.run.run import Run
from app.run.state import HUB_ID, ViewState
from litedetr import DetectorConfig
from litedetr.guests.detector import GuestConfig

LIST = Path(__file__).with_suffix(".json")
OWN = "own"
"""The page's own model as `ViewState.other`."""
_FAMILIES = {"dino": "DINO", "deformable_detr": "Deformable DETR", "h_detr": "H-DETR"}
_BACKBONES = {"mobilenetv2": "MobileNetV2", "resnet50": "ResNet-50", "swin_tiny": "Swin-T"}


def offered(extras: bool = True) -> list[dict[str, str]]:
    """``{"id", "name"}`` of the models in model_list.json, then those of the environment variable LITEDETR_MODELS:
    Hub ids divided by commas, each with ``=a name`` behind it or none.

    Args:
        extras: those too that require a library which is no part of requirements.txt, where it is installed.
    """
    listed = json.loads(LIST.read_text(encoding="utf-8"))
    there = [entry for entry in listed if "requires" not in entry or (extras and find_spec(entry["requires"]))]
    entries = [{"id": entry["id"], "name": entry["name"]} for entry in there]
    for text in os.environ.get("LITEDETR_MODELS", "").split(","):
        name, _, title = (part.strip() for part in text.partition("="))
        if HUB_ID.match(name):
            entries.append({"id": name, "name": title})
    return list({entry["id"]: entry for entry in entries}.values())


def describe(config: DetectorConfig | GuestConfig) -> str:
    """How the page calls a model."""
    if isinstance(config, GuestConfig):
        return config.title
    lite = not config.encoder_schedule.is_full
    family = ("Lite-" if lite else "") + _FAMILIES[config.family]
    backbone = _BACKBONES.get(config.backbone, config.backbone)
    return " · ".join([family, backbone, *([config.schedule] if lite else [])])


def other_models(run: Run, state: ViewState) -> list[list[str]]:
    """[value of `ViewState.other`, name] of each model that a view offers beside the one that made the run: the page's own where
    another made the run, those of the list, and the one that a link names."""
    known = {entry["id"]: entry["name"] or entry["id"] for entry in offered() if entry["id"] != run.source}
    if HUB_ID.match(state.other) and state.other != run.source:
        known.setdefault(state.other, state.other)
    own = [[OWN, say(state.lang, "models.own")]] if run.source else []
    return own + [[source, name] for source, name in known.items()]
