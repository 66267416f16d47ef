"""What the families have in common when encoder tokens become queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litedetr.families.heads import Classes, ClassHead, box_head
from litedetr.output import LayerOutput
from litedetr.positions import box_proposals, move_anchors
from litedetr.pyramid import FeaturePyramid


@dataclass
class Selection:
    """The decoder's queries.

    Attributes:
        content: (B, Q, d).
        references: (B, Q, 4) boxes cxcywh, or (B, Q, 2) points, **before** the sigmoid.
        positions: (B, Q, d) query positions; None where the decoder makes them from the boxes.
        scores: (B, S) the logit by which each token was ranked, and
        tokens: (B, Q) indices of the chosen ones, best first, and
        anchors: (B, Q, 4) the boxes that they started from, before the sigmoid, and
        output: their own class logits and boxes: None where queries are not chosen among tokens.
        attention_mask: (Q, Q) bool, True = may not attend; None where every query sees every other.
        one_to_one: how many of the queries are one-to-one ones; None for all of them.
    """

    content: Tensor
    references: Tensor
    positions: Tensor | None = None
    scores: Tensor | None = None
    tokens: Tensor | None = None
    anchors: Tensor | None = None
    output: LayerOutput | None = None
    attention_mask: Tensor | None = None
    one_to_one: int | None = None


class TokenHeads(nn.Module):
    """Two-stage: every encoder token predicts (Deformable DETR, appendix A.4).

    Args:
        width: d; classes: K.
        anchor_cells: side of the boxes that tokens start from, in cells of their level, which `move_anchors` moves; None: 0.05
            of the photo's sides on the finest level, twice as much on each coarser one; a sum before the sigmoid moves them.
    """

    def __init__(self, width: int, classes: Classes, anchor_cells: float | None = None):
        super().__init__()
        self.anchor_cells = anchor_cells
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.class_head = ClassHead(width, classes)
        self.box_head = box_head(width)
        nn.init.xavier_uniform_(self.project.weight)

    def candidates(self, memory: Tensor, pyramid: FeaturePyramid) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, d) memory -> tokens (B, S, d), their class logits (B, S, K), the boxes they start from (B, S, 4)
        before the sigmoid. Tokens that cannot be used are 0 and start from infinity."""
        proposals, usable = box_proposals(pyramid.shapes, pyramid.mask, cells=self.anchor_cells)
        tokens = self.norm(self.project(memory.masked_fill(~usable[..., None], 0.0)))
        return tokens, self.class_head(tokens), proposals

    def every_token(self, memory: Tensor, pyramid: FeaturePyramid) -> LayerOutput:
        """What all S tokens predict, boxes included: what the first stage's loss of Deformable DETR is taken from."""
        tokens, logits, proposals = self.candidates(memory, pyramid)
        return LayerOutput(logits, self.boxes(tokens, proposals).sigmoid())

    def boxes(self, tokens: Tensor, proposals: Tensor) -> Tensor:
        """(..., d) tokens and the boxes that they start from (..., 4) -> their own boxes, both before the sigmoid."""
        delta = self.box_head(tokens).to(proposals.dtype)
        return delta + proposals if self.anchor_cells is None else move_anchors(proposals, delta)


def best_tokens(scores: Tensor, queries: int) -> Tensor:
    """(B, S) -> (B, Q) indices of the tokens with the highest scores, best first; at most as many as there are."""
    return scores.topk(min(queries, scores.shape[1]), dim=1).indices


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, S, c) rows at (B, Q) indices -> (B, Q, c)."""
    return torch.gather(tokens, 1, index[..., None].expand(-1, -1, tokens.shape[-1]))
