"""The paper's tables 3 and 4 (Lite DETR, arXiv 2303.07335), beside what is counted here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from litedetr.config import preset
from litedetr.cost.macs import Rule, gmacs, published_rule

SIZE = (800, 1066)


@dataclass(frozen=True)
class PaperRow:
    """One row: a preset, the paper's GFLOPs (total, encoder; None where it gives none) and AP on COCO val2017.

    `size` is the input; `changes` are those to the counting rule of the published code with which the paper's total is met.
    Deformable DETR was counted at another size and with the sampling of the plain operator. Lite-Deformable DETR and Lite-H-DETR
    were never published, so whether their first stage predicts every token's box is unknown: the paper's totals fit boxes for
    every token in Lite-H-DETR with Swin-T, and for the chosen tokens in the others.
    """

    model: str
    total: float
    encoder: float | None
    ap: float
    size: tuple[int, int] = SIZE
    changes: tuple[tuple[str, bool], ...] = ()

    @property
    def rule(self) -> Rule:
        return replace(published_rule(preset(self.model)), **dict(self.changes))


_CHOSEN = (("every_token_box", False),)

ROWS = (
    PaperRow("dino-swin-t", 243, 137, 54.1),
    PaperRow("lite-dino-swin-t-h2l2-2x3", 138, 30, 53.1),
    PaperRow("lite-dino-swin-t-h3l1-6x1", 149, 41, 53.3),
    PaperRow("lite-dino-swin-t-h3l1-2x3", 159, 53, 53.9),
    PaperRow("h-detr-swin-t", 234, None, 53.2),
    PaperRow("lite-h-detr-swin-t-h2l2-2x3", 131, None, 52.3),
    PaperRow("lite-h-detr-swin-t-h3l1-6x1", 142, None, 52.7),
    PaperRow("lite-h-detr-swin-t-h3l1-2x3", 152, None, 53.0),
    PaperRow("dino-r50", 235, 137, 50.7),
    PaperRow("lite-dino-r50-h2l2-2x3", 130, 30, 49.9),
    PaperRow("lite-dino-r50-h3l1-6x1", 141, 41, 50.2),
    PaperRow("lite-dino-r50-h3l1-2x3", 151, 53, 50.4),
    PaperRow("h-detr-r50", 226, None, 50.0),
    PaperRow("lite-h-detr-r50-h3l1-2x3", 142, None, 49.5, changes=_CHOSEN),
    PaperRow("deformable-detr-r50-two-stage", 177, 90, 46.8, size=(850, 1040), changes=(("plain_sampling", True),)),
    PaperRow("lite-deformable-detr-r50-h2l2-2x3", 108, 23, 45.8, changes=_CHOSEN),
    PaperRow("lite-deformable-detr-r50-h3l1-6x1", 115, 30, 45.9, changes=_CHOSEN),
    PaperRow("lite-deformable-detr-r50-h3l1-3x2", 119, 35, 46.2, changes=_CHOSEN),
    PaperRow("lite-deformable-detr-r50-h3l1-2x3", 123, 39, 46.7, changes=_CHOSEN),
)


def table() -> list[dict[str, Any]]:
    """Every row, JSON-ready: what the paper prints and what is counted, in GMACs, and what this project's own model costs."""
    rows = []
    for row in ROWS:
        config = preset(row.model)
        cost = gmacs(config, row.size, row.rule)
        rows.append(
            {
                "model": row.model,
                "size": list(row.size),
                "paper_total": row.total,
                "total": round(cost.total, 2),
                "paper_encoder": row.encoder,
                "encoder": round(cost.encoder, 2),
                "paper_ap": row.ap,
                "first_stage_boxes": "every token" if row.rule.every_token_box else "chosen tokens",
                "own_total": round(gmacs(config, row.size).total, 2),
            }
        )
    return rows


def text() -> str:
    """The table for a terminal."""
    lines = [f"{'model':38} {'input':>9} {'total':>7} {'paper':>6} {'encoder':>8} {'paper':>6} {'AP':>5}"]
    for row in table():
        size, encoder = "x".join(map(str, row["size"])), row["paper_encoder"]
        lines.append(
            f"{row['model']:38} {size:>9} {row['total']:7.1f} {row['paper_total']:6.0f} {row['encoder']:8.1f} "
            f"{'' if encoder is None else encoder:>6} {row['paper_ap']:5.1f}"
        )
    return "\n".join(lines)
