"""The models that the page offers, by name alone: views name them, the engine loads them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from app.i18n import say
from app.run.run import Run
from app.run.state import HUB_ID, ViewState
from litedetr import DetectorConfig
from litedetr.backbones import backbone_of
from litedetr.config import preset
from litedetr.families import family_of
from litedetr.guests.detector import GuestConfig
from litedetr.weights import VARIANTS, read_config
from litedetr.weights.published import Published, catalogue

LIST = Path(__file__).with_suffix(".json")
MODEL = os.environ.get("LITEDETR_MODEL", "embedded")
"""Source of the page's own model."""
OWN = "own"
"""The page's own model as `ViewState.other`."""
FULL = "embedded/full"
"""The embedded model with the full encoder, trained as it was."""


@dataclass(frozen=True)
class Listed:
    """A model of the page's list.

    Attributes:
        id: what a link calls it: a Hub id, "embedded/name", "published/name" or "local/folder".
        name: what the page calls it, "" for its id.
        group: "embedded" ones beside the page's own, "published" by their authors, "guests" of other code bases, or named by
            the "host".
        source: what `litedetr.Detector.from_pretrained` takes.
    """

    id: str
    name: str
    group: str
    source: str


def listed(extras: bool = True) -> dict[str, Listed]:
    """The models that the page offers, by id: variants of the embedded one, published ones, those of model_list.json, the host's.

    Args:
        extras: those too that require a library which is no part of requirements.txt, where it is installed.

    Environment variables of the host:
        LITEDETR_PUBLISHED: "all", "none", or names of the catalogue of published weights, divided by commas.
        LITEDETR_MODELS: more: Hub ids and folders of this machine divided by commas, each with ``=a name`` behind it or none.
    """
    wanted = os.environ.get("LITEDETR_PUBLISHED", "all").strip()
    names = catalogue() if wanted == "all" else [name.strip() for name in wanted.split(",") if name.strip() in catalogue()]
    models = [_variant(source) for source in VARIANTS]
    models += [_published(catalogue()[name]) for name in names]
    for entry in json.loads(LIST.read_text(encoding="utf-8")):
        if extras and find_spec(entry["requires"]):
            models.append(Listed(entry["id"], entry["name"], "guests", entry["id"]))
    for text in os.environ.get("LITEDETR_MODELS", "").split(","):
        source, _, name = (part.strip() for part in text.partition("="))
        if source and Path(source).is_dir():
            folder = Path(source).resolve().name
            models.append(Listed(f"local/{re.sub(r'[^A-Za-z0-9_.-]', '-', folder)}", name or folder, "host", source))
        elif HUB_ID.match(source):
            models.append(Listed(source, name, "host", source))
    return {model.id: model for model in models}


def offered() -> list[dict[str, str]]:
    """The list for the browser: ``{"id", "name", "group"}``, in the order of their groups."""
    models = sorted(listed().values(), key=lambda model: ("embedded", "published", "guests", "host").index(model.group))
    return [{"id": model.id, "name": model.name, "group": model.group} for model in models]


@cache
def _variant(source: str) -> Listed:
    """What it differs by comes first in its name."""
    config = read_config(source)
    kinds = ("Full encoder",) * config.encoder_schedule.is_full + ("Plain attention",) * (not config.key_aware)
    return Listed(source, " · ".join((*kinds, describe(config))), "embedded", source)


def _published(entry: Published) -> Listed:
    config = preset(entry.preset)
    kinds = {"two-stage": config.family == "deformable_detr" and config.two_stage, "box refinement": _refined(config),
             "one scale": config.levels == 1, "DC5": config.dilation}  # fmt: skip
    kinds |= {entry.name.removeprefix(entry.preset).strip("-").replace("-", " "): entry.name != entry.preset}
    words = "".join(f", {kind}" for kind, told in kinds.items() if told)
    name = f"{describe(config)}{words} · AP {entry.ap} · {entry.megabytes} MB · {entry.gmacs:.0f} GMACs"
    source = entry.repo or entry.name
    return Listed(entry.repo or f"published/{entry.name}", name, "published", source)


def _refined(config: DetectorConfig) -> bool:
    return config.family == "deformable_detr" and config.box_refine and not config.two_stage


def describe(config: DetectorConfig | GuestConfig) -> str:
    """How the page calls a model."""
    if isinstance(config, GuestConfig):
        return config.title
    lite = not config.encoder_schedule.is_full
    family = ("Lite-" if lite else "") + family_of(config).title
    return " · ".join([family, backbone_of(config).title, *([config.schedule] if lite else [])])


def named(source: str, config: DetectorConfig | GuestConfig) -> str:
    """How the page calls the model of a source: a folder's by the heading of its card, where it has one."""
    file = Path(source) / "README.md"
    found = re.search(r"^# (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    return f"{found[1].strip()} · {describe(config)}" if found else describe(config)


def alike_exists(run: Run) -> bool:
    """Whether `FULL` differs from the run's model in its encoder alone."""
    return run.source == "" and MODEL == "embedded" and run.config == _embedded_config()


@cache
def _embedded_config() -> DetectorConfig:
    return read_config("embedded")


def other_models(run: Run, state: ViewState) -> list[list[str]]:
    """[value of `ViewState.other`, name] of each model that a view offers beside the one that made the run: the page's own where
    another made the run, those of the list, and the one that a link names."""
    known = {entry["id"]: entry["name"] or entry["id"] for entry in offered() if entry["id"] != run.source}
    if HUB_ID.match(state.other) and state.other != run.source:
        known.setdefault(state.other, state.other)
    own = [[OWN, say(state.lang, "models.own")]] if run.source else []
    return own + [[source, name] for source, name in known.items()]
