"""What a detector's forward takes and gives besides pixels: plain dataclasses of tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class LayerOutput:
    """One prediction per query: ``logits`` (B, Q, K) before the sigmoid, ``boxes`` (B, Q, 4) cxcywh.

    Boxes are in [0, 1] of the image *without* its padding, as in DETR.
    """

    logits: Tensor
    boxes: Tensor


@dataclass
class DenoisingQueries:
    """Noised ground truth put before the ordinary queries in training (DINO, section 3.3).

    Attributes:
        content: (B, N, d) label embeddings.
        reference_points: (B, N, 4) noised boxes, cxcywh **before** the sigmoid.
        attention_mask: (N + Q, N + Q) bool, True = may not attend; Q: as many as the model has.
    """

    content: Tensor
    reference_points: Tensor
    attention_mask: Tensor


@dataclass
class DetectorOutput:
    """Predictions of one forward pass.

    Attributes:
        logits, boxes: of the last decoder layer, see `LayerOutput`.
        auxiliary: the earlier decoder layers, first to last.
        tokens: (B, Q) the encoder tokens that queries come from (two-stage models).
        proposals: the selected encoder tokens' own predictions (two-stage models).
        denoising: every decoder layer's predictions for the denoising queries; empty without them.
        one_to_many: every decoder layer's predictions for the one-to-many queries (H-DETR); empty without them.
        dense: predictions of every encoder token by the training-only dense head, if asked for.
        every_token: predictions of every encoder token by the first stage's own heads, if asked for; tokens that cannot be used
            have the box (1, 1, 1, 1).
        dense_shapes: (height, width) of every level, finest first, and
        dense_mask: (B, S) bool, True = padding: the layout of ``dense``.
    """

    logits: Tensor
    boxes: Tensor
    auxiliary: tuple[LayerOutput, ...] = ()
    tokens: Tensor | None = None
    proposals: LayerOutput | None = None
    denoising: tuple[LayerOutput, ...] = ()
    one_to_many: tuple[LayerOutput, ...] = ()
    dense: LayerOutput | None = None
    every_token: LayerOutput | None = None
    dense_shapes: tuple[tuple[int, int], ...] = field(default=())
    dense_mask: Tensor | None = None
