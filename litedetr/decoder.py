"""The decoder: queries look at each other, then at the memory, and their boxes are refined layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litedetr.attention import DeformableAttention, KeyAwareDeformableAttention
from litedetr.feedforward import MLP, FeedForward
from litedetr.positions import box_sine, inverse_sigmoid
from litedetr.pyramid import FeaturePyramid
from litedetr.trace import Trace


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
        attended = self.attention(
            content + positions, reference_points, memory, pyramid.shapes, padding, return_sampling=trace is not None
        )
        if trace is not None:
            attended, sampling = attended
            record, index = trace
            record.add_decoder_layer(index, reference_points, sampling, attended, self.attention)
        return self.ffn(self.norm(content + attended))


class DeformableDecoder(nn.Module):
    """Decoder layers with iterative box refinement, as DINO has them: query positions come from the present boxes.

    Args:
        layers: their number; width: d; heads: M; levels: L; points: P; ffn: hidden width of the feed-forward networks.
        key_aware: KDA instead of plain deformable attention.
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
    ):
        super().__init__()
        attention = KeyAwareDeformableAttention if key_aware else DeformableAttention
        self.width = width
        self.layers = nn.ModuleList(
            DecoderLayer(attention(width, heads, levels, points), width, heads, ffn) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.reference_head = MLP(2 * width, width, width)

    def forward(
        self,
        content: Tensor,
        references: Tensor,
        memory: Tensor,
        pyramid: FeaturePyramid,
        box_heads: Sequence[nn.Module],
        attention_mask: Tensor | None = None,
        trace: Trace | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Refine boxes layer by layer.

        Args:
            content: (B, Q, d) query contents.
            references: (B, Q, 4) boxes, cxcywh **before** the sigmoid.
            memory: (B, S, d) the encoder's output; pyramid: its layout.
            box_heads: one box head per layer.
            attention_mask: (Q, Q) bool, True = may not attend.

        Returns:
            States after the final norm (layers, B, Q, d); boxes before the first and after each layer
            (layers + 1, B, Q, 4), cxcywh in [0, 1]. Later layers' boxes pass gradients to the layer before ("look
            forward twice", DINO, section 3.5).
        """
        ratios = torch.cat((pyramid.valid_ratios, pyramid.valid_ratios), dim=-1)  # (B, L, 4)
        padding = pyramid.padding
        boxes = references.sigmoid()
        states, refined = [], [boxes]
        for index, (layer, box_head) in enumerate(zip(self.layers, box_heads, strict=True)):
            level_boxes = boxes[:, :, None] * ratios[:, None]  # (B, Q, L, 4)
            positions = self.reference_head(box_sine(level_boxes[:, :, 0], self.width // 2))
            recording = None if trace is None else (trace, index)
            content = layer(content, positions, level_boxes, memory, pyramid, padding, attention_mask, recording)
            new_boxes = (box_head(content).to(boxes.dtype) + inverse_sigmoid(boxes)).sigmoid()
            states.append(self.norm(content))
            refined.append(new_boxes)
            boxes = new_boxes.detach()
        return torch.stack(states), torch.stack(refined)
