"""``python -m litedetr convert``: a published checkpoint becomes a folder in this project's format."""

from __future__ import annotations

from pathlib import Path

from litedetr import weights
from litedetr.config import DetectorConfig
from litedetr.cost import parameters
from litedetr.detector import Detector
from litedetr.weights.conversion.checkpoint import Checkpoint, read_checkpoint
from litedetr.weights.conversion.infer import Known, infer_config
from litedetr.weights.conversion.reference import load_reference_state

_TITLES = {"dino": "DINO", "deformable_detr": "Deformable DETR", "h_detr": "H-DETR"}
_SOURCES = {
    "dino": ("https://github.com/IDEA-Research/DINO", "arXiv 2203.03605"),
    "lite_dino": ("https://github.com/IDEA-Research/Lite-DETR", "arXiv 2303.07335"),
    "deformable_detr": ("https://github.com/fundamentalvision/Deformable-DETR", "arXiv 2010.04159"),
    "h_detr": ("https://github.com/HDETR/H-Deformable-DETR", "arXiv 2207.13080"),
}
_LICENCES = {"h_detr": "MIT"}


def convert(source: str | Path, folder: str | Path, schedule: str | None = None, heads: int | None = None) -> DetectorConfig:
    """Write `folder`/config.json, model.safetensors and README.md.

    Args:
        source: a ``.pth`` file, a folder in transformers' format, or a Hub id.
        schedule, heads: what the checkpoint does not tell.

    Raises:
        WeightsError: the checkpoint cannot be read, something about it is unknown, or a key is unaccounted for; nothing is
            written then.
    """
    path, folder = Path(source), Path(folder)
    if not path.exists() and str(source).count("/") == 1:
        path = weights.find(str(source))
    checkpoint = read_checkpoint(path, origin=str(source) if path != Path(source) else None)
    detector = from_checkpoint(checkpoint, schedule, heads)
    weights.save(detector, folder)
    (folder / "README.md").write_text(model_card(detector, checkpoint), encoding="utf-8")
    return detector.config


def from_checkpoint(checkpoint: Checkpoint, schedule: str | None = None, heads: int | None = None) -> Detector:
    """The detector that a checkpoint holds; every key and shape is accounted for."""
    config = infer_config(checkpoint.state, Known(checkpoint.args, checkpoint.name, schedule, heads))
    needed, given = parameters(config), sum(value.numel() for value in checkpoint.state.values())
    if needed > 2 * given:  # before any memory is spent; names and shapes are compared one by one below
        raise weights.WeightsError(
            f"expected the tensors of a model with {needed:,} parameters in {checkpoint.origin}, got {given:,} numbers: the file "
            "is not what its names and settings say"
        )
    detector = Detector(config)
    load_reference_state(detector, checkpoint.state)
    return detector


def model_card(detector: Detector, checkpoint: Checkpoint) -> str:
    """What the weights are, where they come from, and how to use them."""
    c = detector.config
    lite = not c.encoder_schedule.is_full
    title = ("Lite-" if lite else "") + _TITLES[c.family]
    home, paper = _SOURCES["lite_dino" if lite and c.is_dino else c.family]
    licence = _LICENCES.get(c.family, "Apache-2.0")
    parameters = sum(p.numel() for p in detector.parameters())
    return f"""---
license: {licence.lower()}
library_name: litedetr
pipeline_tag: object-detection
---
# {title}, {c.backbone}, {c.schedule if lite else "full encoder"}

Converted from `{checkpoint.origin}`, a checkpoint of the published implementation ({home}, {paper}), licence {licence}.
The weights are the same numbers under other names; nothing was trained or changed.

| | |
| --- | --- |
| family | {_TITLES[c.family]} |
| backbone | {c.backbone} |
| encoder | {c.schedule}, {"key-aware" if c.key_aware else "plain"} deformable attention |
| decoder | {c.decoder_layers} layers, {c.queries} queries |
| width, heads, scales, points | {c.width}, {c.heads}, {c.levels}, {c.points} |
| classes | {c.num_classes} |
| parameters | {parameters / 1e6:.1f} million |

```python
from litedetr import Detector

detector = Detector.from_pretrained("this/folder")
print(detector.predict("photo.jpg").names)
```
"""
