"""The model card of a trained detector: on what, from what, how long, how good, and whose licences to mind. Text out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litedetr.config import DetectorConfig
from litedetr.cost import parameters
from litedetr.training.evaluation import Evaluation
from litedetr.weights import EMBEDDED
from litedetr.weights.folder import PLACE

CLASSES = 30
"""Rows of the table of classes, at most."""


@dataclass(frozen=True)
class Training:
    """What a card tells of a training.

    Attributes:
        name: of the run's folder; data: of the set's; pictures, boxes: trained on; licences: that the set names.
        start: as in the recipe, "" for random weights.
        steps, seconds, size: so far, and the longer side of the pictures.
        at_start: AP before the first step, None where it was not measured.
    """

    name: str
    data: str
    pictures: int
    boxes: int
    licences: Sequence[str]
    start: str
    steps: int
    seconds: float
    size: int
    at_start: float | None


def card(config: DetectorConfig, training: Training, result: Evaluation | None) -> str:
    """README.md of a weights folder; curve.svg is expected beside it where there is a result."""
    t = training
    minutes = f"{t.seconds / 60:.0f} minutes" if t.seconds >= 90 else f"{t.seconds:.0f} seconds"
    start = f"`{t.start}` ({_licence(t.start)})" if t.start else "random weights"
    lines = [
        "---", "library_name: litedetr", "pipeline_tag: object-detection", "tags:", "- object-detection", "---",
        f"# {t.name}", "",
        f"Finds {_count(config.num_classes, 'class', 'classes')} of objects in photos: {', '.join(config.names[:20])}"
        f"{', …' if config.num_classes > 20 else ''}. {parameters(config) / 1e6:.1f} million parameters, family "
        f"`{config.family}`, backbone `{config.backbone}`, encoder `{config.schedule}`.", "",
        "```python", "from litedetr import Detector", "",
        f'detector = Detector.from_pretrained("{PLACE}")      # or this folder',
        'print(detector.predict("photo.jpg").names)', "```", "",
        "| | |", "| --- | --- |",
        f"| trained on | `{t.data}`: {_count(t.pictures, 'picture', 'pictures')}, {_count(t.boxes, 'box', 'boxes')} |",
        f"| from | {start} |",
        f"| for | {t.steps:,} steps, {minutes}, pictures of {t.size} px |",
    ]  # fmt: skip
    if result is not None:
        lines += _figures(t, result)
    named = ", ".join(t.licences[:8]) + (", …" if len(t.licences) > 8 else "")
    lines += [
        "", "Licence: add `license:` above when you publish it. "
        + (f"The pictures' licences, as the set names them: {named}." if named else "The set names no licences of its pictures.")
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _figures(training: Training, result: Evaluation) -> list[str]:
    figures = [f"{100 * result.figures[name]:.1f}" for name in ("AP", "AP50", "AP75")]
    before = "" if training.at_start is None else f"; before the training AP was {100 * training.at_start:.1f}"
    rows = list(result.per_class.items())[:CLASSES]
    return [
        f"| AP, AP50, AP75 | {', '.join(figures)} on {_count(result.images, 'picture', 'pictures')} of val{before} |", "",
        "![Loss and average precision against hours](curve.svg)", "",
        "| class | AP | AP50 | AR |", "| --- | --- | --- | --- |",
        *(f"| {name} | {100 * row['AP']:.1f} | {100 * row['AP50']:.1f} | {100 * row['AR']:.1f} |" for name, row in rows),
    ]  # fmt: skip


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _licence(start: str) -> str:
    """What the start's own card says."""
    file = (EMBEDDED if start == "embedded" else Path(start)) / "README.md"
    found = re.search(r"^license: *(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    return f"licence {found[1]}" if found else "see its own licence"
