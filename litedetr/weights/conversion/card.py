"""The model card of a published checkpoint in this project's format."""

from __future__ import annotations

from litedetr.config import DetectorConfig
from litedetr.cost import parameters
from litedetr.families import family_of
from litedetr.weights.conversion.checkpoint import Checkpoint


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
