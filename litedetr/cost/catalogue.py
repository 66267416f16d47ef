"""The table of models, generated from the presets: what each costs, its AP in the paper, and where its weights were published."""

from __future__ import annotations

from litedetr.config import DetectorConfig, presets
from litedetr.cost import paper
from litedetr.cost.macs import gmacs, parameters

_FAMILIES = {"dino": "DINO", "deformable_detr": "Deformable DETR", "h_detr": "H-DETR"}
_LITE_DETR = "[{}](https://github.com/IDEA-Research/Lite-DETR/releases/tag/litedetr)"
_HUB = "[{0}](https://huggingface.co/{0})"

WEIGHTS = {
    "lite-dino-mobilenet": "embedded",
    "lite-dino-r50-h2l2-2x3": _LITE_DETR.format("r50_s2ex3_49.9.pth"),
    "lite-dino-r50-h3l1-6x1": _LITE_DETR.format("r50_s3ex1_50.2.pth"),
    "lite-dino-r50-h3l1-2x3": _LITE_DETR.format("r50_s3ex3_50.4.pth"),
    "dino-r50": "[DINO](https://github.com/IDEA-Research/DINO)",
    "h-detr-r50": "[H-DETR](https://github.com/HDETR/H-Deformable-DETR)",
    "h-detr-swin-t": "[H-DETR](https://github.com/HDETR/H-Deformable-DETR)",
    "deformable-detr-r50": _HUB.format("SenseTime/deformable-detr"),
    "deformable-detr-r50-refine": _HUB.format("SenseTime/deformable-detr-with-box-refine"),
    "deformable-detr-r50-two-stage": _HUB.format("SenseTime/deformable-detr-with-box-refine-two-stage"),
}
"""Published weights by preset; the others were never published."""


def markdown() -> str:
    """One row per preset, grouped by family, the full encoder first."""
    ap = {row.model: f"{row.ap:.1f}" for row in paper.ROWS}
    lines = [
        "| model | family | encoder | GMACs | encoder's GMACs | parameters | AP (paper) | weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, config in sorted(presets().items(), key=_order):
        cost = gmacs(config, _input(config))
        lines.append(
            f"| `{name}` | {_FAMILIES[config.family]} | {_encoder(config)} | {cost.total:.1f} | {cost.encoder:.1f} "
            f"| {parameters(config) / 1e6:.1f} M | {ap.get(name, '')} | {WEIGHTS.get(name, '')} |"
        )
    return "\n".join(lines)


def _order(item: tuple[str, DetectorConfig]) -> tuple:
    name, config = item
    return list(_FAMILIES).index(config.family), config.backbone, not config.encoder_schedule.is_full, name


def _encoder(config: DetectorConfig) -> str:
    if config.encoder_schedule.is_full:
        return "full"
    return config.schedule + (", key-aware" if config.key_aware else "")


def _input(config: DetectorConfig) -> tuple[int, int]:
    """800 x 1066, as the paper counts, or a landscape photo of the size that a smaller model is fed."""
    if config.short_side == 800:
        return paper.SIZE
    return 3 * config.long_side // 4, config.long_side
