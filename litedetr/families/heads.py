"""Class and box heads, alike in every family."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litedetr.feedforward import MLP
from litedetr.output import LayerOutput
from litedetr.positions import box_proposals, move_boxes
from litedetr.pyramid import FeaturePyramid

PRIOR_BIAS = -math.log((1 - 0.01) / 0.01)
"""Class logits start at a probability of 1 % (focal loss, section 4.1)."""


Classes = int | tuple[int, ...]
"""How many classes there are, with a row of weights each; or how many rows each of them has."""


class ClassHead(nn.Linear):
    """A linear layer (..., d) -> logits (..., K) that start near 1 %.

    A class with several rows has the best one's logit (maxout, Goodfellow et al. 2013): what somebody calls a vehicle looks like
    a car or like a bus, and not like something between them.
    """

    def __init__(self, width: int, classes: Classes):
        rows = () if isinstance(classes, int) else classes
        super().__init__(width, classes if isinstance(classes, int) else sum(rows))
        self.rows = rows
        nn.init.constant_(self.bias, PRIOR_BIAS)

    def forward(self, x: Tensor) -> Tensor:
        return best_rows(super().forward(x), self.rows)


def best_rows(logits: Tensor, rows: tuple[int, ...]) -> Tensor:
    """(..., R) -> (..., K): the best of each class' rows; as they are where every class has one (``rows`` is empty)."""
    return torch.stack([own.amax(-1) for own in logits.split(rows, -1)], -1) if rows else logits


def box_head(width: int) -> MLP:
    """An MLP whose outputs start at 0: boxes start at their reference."""
    head = MLP(width, width, width, 4)
    nn.init.zeros_(head.layers[-1].weight)
    nn.init.zeros_(head.layers[-1].bias)
    return head


class DetectionHeads(nn.Module):
    """Class and box heads of the decoder layers; one of each for all of them if `shared`.

    Args:
        width: d; classes: K; layers: of the decoder.
        refine: boxes move from layer to layer (Deformable DETR, section 4.2).
        eps: of the inverse sigmoid.
    """

    def __init__(self, width: int, classes: Classes, layers: int, shared: bool, refine: bool = True, eps: float = 1e-3):
        super().__init__()
        copies = 1 if shared else layers
        self.layers, self.refine, self.eps = layers, refine, eps
        self.classes = nn.ModuleList(ClassHead(width, classes) for _ in range(copies))
        self.boxes = nn.ModuleList(box_head(width) for _ in range(copies))

    def start_small(self) -> None:
        """Boxes that grow out of points start at an eighth of the photo (Deformable DETR's first layer)."""
        nn.init.constant_(self.boxes[0].layers[-1].bias[2:], -2.0)

    def box_heads(self) -> list[nn.Module | None]:
        """One per decoder layer, which moves that layer's boxes; None where boxes stay."""
        return _per_layer(self.boxes, self.layers) if self.refine else [None] * self.layers

    def forward(self, states: Tensor, references: Sequence[Tensor]) -> list[LayerOutput]:
        """States (layers, B, Q, d), of the last layers where they are fewer, and what each of them started from,
        (B, Q, 2 or 4) in [0, 1] -> one output per layer."""
        heads = list(zip(_per_layer(self.classes, self.layers), _per_layer(self.boxes, self.layers), strict=True))
        return [
            LayerOutput(to_class(state), move_boxes(boxes, to_box(state), self.eps))
            for (to_class, to_box), state, boxes in zip(heads[-len(states) :], states, references, strict=False)
        ]


class DenseHead(nn.Module):
    """Training only: every encoder token predicts a class and a box, supervised one-to-many."""

    def __init__(self, width: int, classes: Classes):
        super().__init__()
        self.class_head = ClassHead(width, classes)
        self.box_head = box_head(width)

    def forward(self, memory: Tensor, pyramid: FeaturePyramid) -> LayerOutput:
        """(B, S, d) -> logits (B, S, K), boxes (B, S, 4)."""
        anchors, _ = box_proposals(pyramid.shapes, pyramid.mask, usable_only=False)
        return LayerOutput(self.class_head(memory), (self.box_head(memory).to(anchors.dtype) + anchors).sigmoid())


def _per_layer(heads: nn.ModuleList, layers: int) -> list[nn.Module]:
    return list(heads) * (layers // len(heads))
