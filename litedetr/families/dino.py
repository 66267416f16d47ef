"""DINO and Lite-DINO: mixed query selection, look forward twice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litedetr.feedforward import MLP
from litedetr.output import LayerOutput
from litedetr.positions import box_proposals, inverse_sigmoid
from litedetr.pyramid import FeaturePyramid

PRIOR_BIAS = -math.log((1 - 0.01) / 0.01)
"""Class logits start at a probability of 1 % (focal loss, section 4.1)."""


def class_head(width: int, classes: int) -> nn.Linear:
    """A linear layer whose outputs start near 1 %."""
    head = nn.Linear(width, classes)
    nn.init.constant_(head.bias, PRIOR_BIAS)
    return head


def box_head(width: int) -> MLP:
    """An MLP whose outputs start at 0: boxes start at their reference."""
    head = MLP(width, width, width, 4)
    nn.init.zeros_(head.layers[-1].weight)
    nn.init.zeros_(head.layers[-1].bias)
    return head


@dataclass
class Selection:
    """Queries chosen among the encoder's tokens.

    Attributes:
        scores: (B, S) each token's best class logit.
        tokens: (B, Q) indices of the chosen ones, best first.
        content: (B, Q, d) learned contents ("mixed" selection: only positions come from the image), or the chosen tokens.
        references: (B, Q, 4) their boxes, cxcywh before the sigmoid, without gradient.
        anchors: (B, Q, 4) the boxes that they started from, before the sigmoid.
        output: their own class logits and boxes.
    """

    scores: Tensor
    tokens: Tensor
    content: Tensor
    references: Tensor
    anchors: Tensor
    output: LayerOutput


class QuerySelection(nn.Module):
    """Two-stage: every token predicts, the best become queries (DINO, section 3.4)."""

    def __init__(self, width: int, queries: int, classes: int, learned_content: bool = True):
        super().__init__()
        self.queries = queries
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.class_head = class_head(width, classes)
        self.box_head = box_head(width)
        self.content = nn.Embedding(queries, width) if learned_content else None
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, memory: Tensor, pyramid: FeaturePyramid) -> Selection:
        """(B, S, d) memory -> `Selection` of at most as many queries as there are tokens."""
        B, S, _ = memory.shape
        proposals, usable = box_proposals(pyramid.shapes, pyramid.mask)
        tokens = self.norm(self.project(memory.masked_fill(~usable[..., None], 0.0)))
        logits = self.class_head(tokens)
        scores = logits.amax(-1)
        count = min(self.queries, S)
        chosen = scores.topk(count, dim=1).indices  # (B, Q)
        anchors = _gather(proposals, chosen)
        references = self.box_head(_gather(tokens, chosen)).to(anchors.dtype) + anchors
        return Selection(
            scores=scores,
            tokens=chosen,
            content=_gather(tokens, chosen).detach() if self.content is None else self._learned(B, count),
            references=references.detach(),
            anchors=anchors,
            output=LayerOutput(_gather(logits, chosen), references.sigmoid()),
        )

    def _learned(self, batch: int, count: int) -> Tensor:
        return self.content.weight[None, :count].expand(batch, -1, -1)


class DetectionHeads(nn.Module):
    """Class and box heads of the decoder layers; one of each for all of them if `shared`."""

    def __init__(self, width: int, classes: int, layers: int, shared: bool):
        super().__init__()
        copies = 1 if shared else layers
        self.layers = layers
        self.classes = nn.ModuleList(class_head(width, classes) for _ in range(copies))
        self.boxes = nn.ModuleList(box_head(width) for _ in range(copies))

    def box_heads(self) -> list[nn.Module]:
        """One per decoder layer."""
        return list(self.boxes) * (self.layers // len(self.boxes))

    def forward(self, states: Tensor, references: Tensor) -> list[LayerOutput]:
        """States (layers, B, Q, d) and the boxes that each layer started from -> one output per layer."""
        class_heads = list(self.classes) * (self.layers // len(self.classes))
        return [
            LayerOutput(to_class(state), (to_box(state).to(boxes.dtype) + inverse_sigmoid(boxes)).sigmoid())
            for to_class, to_box, state, boxes in zip(class_heads, self.box_heads(), states, references, strict=False)
        ]


class DenseHead(nn.Module):
    """Training only: every encoder token predicts a class and a box, supervised one-to-many."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.class_head = class_head(width, classes)
        self.box_head = box_head(width)

    def forward(self, memory: Tensor, pyramid: FeaturePyramid) -> LayerOutput:
        """(B, S, d) -> logits (B, S, K), boxes (B, S, 4)."""
        anchors, _ = box_proposals(pyramid.shapes, pyramid.mask, usable_only=False)
        return LayerOutput(self.class_head(memory), (self.box_head(memory).to(anchors.dtype) + anchors).sigmoid())


def _gather(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, S, c) rows at (B, Q) indices -> (B, Q, c)."""
    return torch.gather(tokens, 1, index[..., None].expand(-1, -1, tokens.shape[-1]))
