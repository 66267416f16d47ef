"""The table of models, generated from the presets: what each costs, its AP in the paper, and where its weights were published."""

from __future__ import annotations

from collections.abc import Mapping

from litedetr.config import FAMILIES, DetectorConfig, presets
from litedetr.cost import paper
from litedetr.cost.macs import gmacs, parameters
from litedetr.families import family_of


def markdown(weights: Mapping[str, str]) -> str:
    """One row per preset, grouped by family, the full encoder first.

    Args:
        weights: where a preset's weights are, as Markdown; presets without are left out.
    """
    ap = {row.model: f"{row.ap:.1f}" for row in paper.ROWS}
    lines = [
        "| model | family | encoder | GMACs | encoder's GMACs | parameters | AP (paper) | weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, config in sorted(presets().items(), key=_order):
        cost = gmacs(config, _input(config))
        lines.append(
            f"| `{name}` | {family_of(config).title} | {_encoder(config)} | {cost.total:.1f} | {cost.encoder:.1f} "
            f"| {parameters(config) / 1e6:.1f} M | {ap.get(name, '')} | {weights.get(name, '')} |"
        )
    return "\n".join(lines)


def _order(item: tuple[str, DetectorConfig]) -> tuple:
    name, config = item
    return list(FAMILIES).index(config.family), config.backbone, not config.encoder_schedule.is_full, name


def _encoder(config: DetectorConfig) -> str:
    if config.encoder_schedule.is_full:
        return "full"
    return config.schedule + (", key-aware" if config.key_aware else "")


def _input(config: DetectorConfig) -> tuple[int, int]:
    """800 x 1066, as the paper counts, or a landscape photo of the size that a smaller model is fed."""
    if config.short_side == 800:
        return paper.SIZE
    return 3 * config.long_side // 4, config.long_side
