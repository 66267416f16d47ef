"""H-DETR: Deformable DETR with a second set of queries in training, matched one-to-many (Jia et al. 2023)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from litedetr.families.deformable_detr import FAMILY as DEFORMABLE_DETR
from litedetr.families.deformable_detr import ProposalSelection
from litedetr.families.family import Implementation, Rule
from litedetr.families.heads import Classes
from litedetr.families.selection import Selection
from litedetr.pyramid import FeaturePyramid


class HybridSelection(ProposalSelection):
    """One-to-one queries, and behind them, when asked for, one-to-many queries; neither set sees the other (section 3.2).

    Args:
        width: d; queries: of the one-to-one set; one_to_many: of the other set; classes: K.
        learned_content: mixed selection.
    """

    def __init__(self, width: int, queries: int, one_to_many: int, classes: Classes, learned_content: bool = True):
        super().__init__(width, queries + one_to_many, classes, learned_content)
        self.one_to_one = queries

    def forward(
        self, memory: Tensor, pyramid: FeaturePyramid, one_to_many: bool = False, chosen: Tensor | None = None
    ) -> Selection:
        """(B, S, d) memory -> `Selection` of the one-to-one queries, made from the `chosen` tokens (B, Q) where these are given;
        or of both sets with the mask between them."""
        if not one_to_many:
            return self.select(memory, pyramid, self.one_to_one, chosen)
        selection = self.select(memory, pyramid, self.queries)
        Q = selection.content.shape[1]
        first = torch.arange(Q, device=memory.device) < self.one_to_one
        selection.attention_mask = first[:, None] != first[None, :]
        selection.one_to_one = min(self.one_to_one, Q)
        return selection


_AUTHORS = Implementation(
    "https://github.com/HDETR/H-Deformable-DETR",
    "arXiv 2207.13080",
    Rule(every_token_box=True, query_key_products=False, masks=True),
    licence="MIT",
)
FAMILY = replace(
    DEFORMABLE_DETR,
    title="H-DETR",
    selection=lambda c: HybridSelection(c.width, c.queries, c.one_to_many_queries, c.classes, c.learned_content),
    look_forward_twice=True,
    published=_AUTHORS,
    published_lite=_AUTHORS,
)
