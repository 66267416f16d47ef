"""The decoder: queries look at each other, then at the memory, and their boxes are refined layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litedetr.attention import DeformableAttention, KeyAwareDeformableAttention
from litedetr.feedforward import MLP, FeedForward
from litedetr.positions import box_sine, move_boxes
from litedetr.pyramid import FeaturePyramid
from litedetr.trace import Trace, stage


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the memory, feed-forward network; post-norm."""

    def __init__(self, attention: DeformableAttention, width: int, heads: int, ffn: int):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.self_norm = nn.LayerNorm(width)
        self.attention = attention
        self.norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, ffn)

    def forward(
        self,
        content: Tensor,
        positions: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        pyramid: FeaturePyramid,
        padding: Tensor | None,
        attention_mask: Tensor | None = None,
        trace: tuple[Trace, int] | None = None,
    ) -> Tensor:
        """(B, Q, d) content and positions, (B, Q, L, 2 or 4) reference points -> (B, Q, d)."""
        query = content + positions
        attended = self.self_attention(query, query, content, attn_mask=attention_mask, need_weights=False)[0]
        content = self.self_norm(content + attended)
        sampled = trace is not None and trace[0].samples
        attended = self.attention(content + positions, reference_points, memory, pyramid.shapes, padding, return_sampling=sampled)
        attended, sampling = attended if sampled else (attended, None)
        if trace is not None:
            record, index = trace
            record.add_decoder_layer(index, reference_points, sampling, attended, self.attention)
        return self.ffn(self.norm(content + attended))


class DeformableDecoder(nn.Module):
    """Decoder layers with iterative box refinement.

    Args:
        layers: their number; width: d; heads: M; levels: L; points: P; ffn: hidden width of the feed-forward networks.
        key_aware: KDA instead of plain deformable attention.
        from_boxes: query positions are made from the present boxes, and a norm follows the last layer (DAB-DETR, DINO);
            else they are given and stay (Deformable DETR).
        look_forward_twice: the loss of a layer's boxes reaches the layer before (DINO, section 3.5).
        eps: of the inverse sigmoid.
    """

    def __init__(
        self,
        layers: int = 6,
        width: int = 256,
        heads: int = 8,
        levels: int = 4,
        points: int = 4,
        ffn: int = 2048,
        key_aware: bool = True,
        from_boxes: bool = True,
        look_forward_twice: bool = True,
        eps: float = 1e-3,
    ):
        super().__init__()
        attention = KeyAwareDeformableAttention if key_aware else DeformableAttention
        self.width, self.look_forward_twice, self.eps = width, look_forward_twice, eps
        self.layers = nn.ModuleList(
            DecoderLayer(attention(width, heads, levels, points), width, heads, ffn) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if from_boxes else nn.Identity()
        self.reference_head = MLP(2 * width, width, width) if from_boxes else None

    def forward(
        self,
        content: Tensor,
        references: Tensor,
        memory: Tensor,
        pyramid: FeaturePyramid,
        box_heads: Sequence[nn.Module | None],
        attention_mask: Tensor | None = None,
        trace: Trace | None = None,
        positions: Tensor | None = None,
        first: int = 0,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers, refining boxes.

        Args:
            content: (B, Q, d) query contents.
            references: (B, Q, 4) boxes cxcywh or (B, Q, 2) points, **before** the sigmoid.
            memory: (B, S, d) the encoder's output; pyramid: its layout.
            box_heads: one per layer that runs; where it is None the references stay.
            attention_mask: (Q, Q) bool, True = may not attend.
            positions: (B, Q, d) query positions, where they are not made from the boxes.
            first: the layer to begin with.

        Returns:
            States (layers, B, Q, d), after the final norm where there is one; references before the first and after each
            layer, layers + 1 of (B, Q, 2 or 4) in [0, 1].
        """
        ratios = torch.cat((pyramid.valid_ratios, pyramid.valid_ratios), dim=-1)  # (B, L, 4)
        padding = pyramid.padding
        boxes = references.sigmoid()
        states, refined = [], [boxes]
        for index, (layer, box_head) in enumerate(zip(self.layers[first:], box_heads, strict=True), first):
            level_boxes = boxes[:, :, None] * ratios[:, None, :, : boxes.shape[-1]]  # (B, Q, L, 2 or 4)
            if self.reference_head is not None:
                positions = self._positions(level_boxes)
            recording = None if trace is None else (trace, index)
            with stage(trace, f"decoder {index + 1}"):
                content = layer(content, positions, level_boxes, memory, pyramid, padding, attention_mask, recording)
            if trace is not None:
                trace.end_step(content)
            states.append(self.norm(content))
            moved = boxes if box_head is None else move_boxes(boxes, box_head(content), self.eps)
            boxes = moved.detach()
            refined.append(moved if self.look_forward_twice else boxes)
        return torch.stack(states), refined

    def _positions(self, level_boxes: Tensor) -> Tensor:
        """(B, Q, L, 4) the boxes on every level -> (B, Q, d)."""
        return self.reference_head(box_sine(level_boxes[:, :, 0], self.width // 2))

    def attend_again(
        self,
        index: int,
        content: Tensor,
        positions: Tensor | None,
        level_boxes: Tensor,
        memory: Tensor,
        pyramid: FeaturePyramid,
        trace: Trace,
    ) -> None:
        """Record what a layer does with the content (1, Q, d) before it and the boxes on every level (1, Q, L, 2 or 4); the rest
        as in `forward`."""
        if self.reference_head is not None:
            positions = self._positions(level_boxes)
        self.layers[index](content, positions, level_boxes, memory, pyramid, pyramid.padding, None, (trace, index))
