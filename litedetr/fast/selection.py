"""How encoder tokens become queries, for inference: what depends on the size alone is kept, and nothing is masked twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litedetr.families.deformable_detr import ProposalSelection
from litedetr.families.dino import QuerySelection
from litedetr.families.h_detr import HybridSelection
from litedetr.families.selection import TokenHeads
from litedetr.fast.parts import fast_copy
from litedetr.positions import Shapes, box_proposals
from litedetr.pyramid import FeaturePyramid


def fast_selection(selection: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy for inference, sharing nothing with the given one."""
    fast = fast_copy(selection, dtype)
    fast.__class__ = FAST.get(type(selection), type(selection))  # the same layers; `candidates` alone is another
    return fast


class FastTokenHeads(TokenHeads):
    """`TokenHeads` for inference."""

    _known: tuple[Shapes, Tensor, Tensor] | None = None  # of the last size without padding: proposals (1, S, 4), unusable tokens

    def candidates(self, memory: Tensor, pyramid: FeaturePyramid) -> tuple[Tensor, Tensor, Tensor]:
        if pyramid.padding is not None:
            return super().candidates(memory, pyramid)
        known = self._known
        if known is None or known[0] != pyramid.shapes:
            proposals, usable = box_proposals(pyramid.shapes, pyramid.mask[:1], cells=self.anchor_cells)
            known = self._known = pyramid.shapes, proposals, (~usable[0]).nonzero()[:, 0]
        _, proposals, unusable = known
        tokens = self.norm(self.project(memory))
        tokens[:, unusable] = self.norm(self.project(memory.new_zeros(1, memory.shape[-1])))  # a few rows at the borders
        return tokens, self.class_head(tokens), proposals.expand(len(memory), -1, -1)


class FastQuerySelection(FastTokenHeads, QuerySelection):
    """`QuerySelection` for inference."""


class FastProposalSelection(FastTokenHeads, ProposalSelection):
    """`ProposalSelection` for inference."""


class FastHybridSelection(FastTokenHeads, HybridSelection):
    """`HybridSelection` for inference."""


FAST = {
    QuerySelection: FastQuerySelection,
    ProposalSelection: FastProposalSelection,
    HybridSelection: FastHybridSelection,
}
