"""What differs between the detector families: how queries are made."""

from __future__ import annotations

from torch import nn

from litedetr.config import DetectorConfig
from litedetr.families.deformable_detr import LearnedQueries, ProposalSelection
from litedetr.families.dino import QuerySelection
from litedetr.families.h_detr import HybridSelection

__all__ = ["HybridSelection", "LearnedQueries", "ProposalSelection", "QuerySelection", "build_selection"]


def build_selection(config: DetectorConfig) -> nn.Module:
    """The module that makes the decoder's queries from the encoder's memory: (memory, pyramid) -> `Selection`."""
    c = config
    if c.family == "dino":
        return QuerySelection(c.width, c.queries, c.num_classes, c.learned_content, c.anchor_cells)
    if c.family == "h_detr":
        return HybridSelection(c.width, c.queries, c.one_to_many_queries, c.num_classes, c.learned_content)
    if c.two_stage:
        return ProposalSelection(c.width, c.queries, c.num_classes, c.learned_content)
    return LearnedQueries(c.width, c.queries)
