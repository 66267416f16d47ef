"""``python -m litedetr convert``: a published checkpoint becomes a folder in this project's format."""

from __future__ import annotations

from pathlib import Path

from litedetr.config import DetectorConfig
from litedetr.cost import parameters
from litedetr.families import family_of
from litedetr.weights.conversion.checkpoint import Checkpoint, read_checkpoint
from litedetr.weights.conversion.reference import from_checkpoint
from litedetr.weights.errors import WeightsError
from litedetr.weights.folder import write


def convert_file(
    path: Path,
    folder: Path,
    schedule: str | None = None,
    heads: int | None = None,
    origin: str | None = None,
    ap: float | None = None,
    file_sha256: str | None = None,
) -> DetectorConfig:
    """Write `folder`/config.json, model.safetensors and README.md.

    Args:
        path: a ``.pth`` file, or a folder in transformers' format.
        schedule, heads: what the checkpoint does not tell.
        origin, ap, file_sha256: for the card: where it is from, its AP in the authors' words, the file's fingerprint.

    Raises:
        WeightsError: the checkpoint cannot be read, something about it is unknown, or a key is unaccounted for, or it would
            be overwritten; nothing is written then.
    """
    if path.resolve() in (folder.resolve(), (folder / "model.safetensors").resolve()):
        raise WeightsError(f"expected another folder than the checkpoint's own to write to, got {str(folder)!r}: give a new one")
    checkpoint = read_checkpoint(path, origin=origin)
    config, state = from_checkpoint(checkpoint, schedule, heads)
    write(config, state, folder)
    (folder / "README.md").write_text(model_card(config, checkpoint, ap, file_sha256), encoding="utf-8")
    return config


def model_card(
    c: DetectorConfig, checkpoint: Checkpoint, ap: float | None = None, file_sha256: str | None = None
) -> str:
    """What the weights are, where they come from, and how to use them."""
    lite, family = not c.encoder_schedule.is_full, family_of(c)
    authors = family.implementation(c)
    home, paper, licence = authors.home, authors.paper, authors.licence
    more = f"| AP on COCO val2017, as published | {ap} |\n" if ap else ""
    more += f"| SHA-256 of the published file | {file_sha256} |\n" if file_sha256 else ""
    return f"""---
license: {licence.lower()}
library_name: litedetr
pipeline_tag: object-detection
---
# {"Lite-" if lite else ""}{family.title}, {c.backbone}, {c.schedule if lite else "full encoder"}

Converted from `{checkpoint.origin}`, a checkpoint of the published implementation ({home}, {paper}), licence {licence}.
The weights are the same numbers under other names; nothing was trained or changed.

| | |
| --- | --- |
| family | {family.title} |
| backbone | {c.backbone} |
| encoder | {c.schedule}, {"key-aware" if c.key_aware else "plain"} deformable attention |
| decoder | {c.decoder_layers} layers, {c.queries} queries |
| width, heads, scales, points | {c.width}, {c.heads}, {c.levels}, {c.points} |
| classes | {c.num_classes} |
| parameters | {parameters(c) / 1e6:.1f} million |
{more}
```python
from litedetr import Detector

detector = Detector.from_pretrained("this/folder")
print(detector.predict("photo.jpg").names)
```
"""
