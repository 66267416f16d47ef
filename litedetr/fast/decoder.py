"""The decoder for inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litedetr.decoder import DecoderLayer, DeformableDecoder
from litedetr.fast.attention import FastAttention, Places
from litedetr.fast.dense import AddNorm, DenseFeedForward, DenseMLP, DenseSelfAttention, frozen_norm
from litedetr.fast.threads import threads_for
from litedetr.positions import move_boxes
from litedetr.pyramid import FeaturePyramid
from litedetr.trace import Trace, stage


class FastDecoderLayer(nn.Module):
    """`DecoderLayer` for inference, of one photo."""

    def __init__(self, layer: DecoderLayer, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.self_attention = DenseSelfAttention(layer.self_attention, dtype)
        self.self_norm = AddNorm(layer.self_norm)
        self.attention = FastAttention(layer.attention, dtype)
        self.norm = AddNorm(layer.norm)
        self.ffn = DenseFeedForward(layer.ffn, dtype)

    def forward(
        self,
        content: Tensor,
        positions: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        pyramid: FeaturePyramid,
        padding: Tensor | None,
        attention_mask: None = None,
        trace: tuple[Trace, int] | None = None,
    ) -> Tensor:
        """(1, Q, d) content and positions, (1, Q, L, 2 or 4) reference points -> (1, Q, d)."""
        with threads_for(content.numel()):
            content, positions = content[0].to(self.dtype), positions[0].to(self.dtype)
            asking = torch.empty_like(content)
            content = self.self_norm(self.self_attention(content + positions, content), content, None, positions, asking)
            places = Places.of(reference_points[0], pyramid.shapes, self.attention.points)
            attended, sampling = self.attention(
                asking,
                places,
                memory[0],
                pyramid.shapes,
                None if padding is None else padding[0],
                return_sampling=trace is not None and trace[0].samples,
            )
            if trace is not None:
                record, index = trace
                record.add_decoder_layer(index, reference_points, sampling, attended[None], self.attention)
            return self.ffn(self.norm(attended, content))[None]


class FastDecoder(DeformableDecoder):
    """`DeformableDecoder` for inference, made from one, with which it shares nothing.

    Args:
        decoder: it stays as it is.
        dtype: of the weights and of the states, float32 or bfloat16; boxes are float32.
    """

    def __init__(self, decoder: DeformableDecoder, dtype: torch.dtype):
        nn.Module.__init__(self)
        self.width, self.eps = decoder.width, decoder.eps
        self.layers = nn.ModuleList(FastDecoderLayer(layer, dtype) for layer in decoder.layers)
        self.norm = frozen_norm(decoder.norm, dtype) if isinstance(decoder.norm, nn.LayerNorm) else nn.Identity()
        head = decoder.reference_head
        self.reference_head = None if head is None else DenseMLP(head, dtype, last=dtype)

    @torch.inference_mode()
    def forward(
        self,
        content: Tensor,
        references: Tensor,
        memory: Tensor,
        pyramid: FeaturePyramid,
        box_heads: Sequence[nn.Module | None],
        attention_mask: None = None,
        trace: Trace | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """As `DeformableDecoder.forward`, but for what only training needs: no mask, and without a trace the last layer alone.

        Returns:
            States (layers or 1, B, Q, d), after the final norm where there is one; references before each of these layers, of
            (B, Q, 2 or 4) in [0, 1].
        """
        boxes, padding = references.sigmoid().float(), pyramid.padding
        photos = [
            self._one_photo(
                content[photo],
                boxes[photo],
                memory[photo],
                pyramid,
                torch.cat((pyramid.valid_ratios[photo],) * 2, dim=-1),
                None if padding is None else padding[photo],
                box_heads,
                trace,
                None if positions is None else positions[photo],
            )
            for photo in (slice(index, index + 1) for index in range(len(memory)))
        ]
        states, starts = (zip(*results, strict=True) for results in zip(*photos, strict=True))
        return torch.stack([torch.cat(layer) for layer in states]), [torch.cat(layer) for layer in starts]

    def _one_photo(
        self,
        content: Tensor,
        boxes: Tensor,
        memory: Tensor,
        pyramid: FeaturePyramid,
        ratios: Tensor,
        padding: Tensor | None,
        box_heads: Sequence[nn.Module | None],
        trace: Trace | None,
        positions: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The states (1, Q, d) and the boxes before each layer, or of the last one, from (1, Q, d) and (1, Q, 2 or 4); `ratios`
        (1, L, 4)."""
        states, starts = [], []
        last = len(self.layers) - 1
        for index, (layer, box_head) in enumerate(zip(self.layers, box_heads, strict=True)):
            level_boxes = boxes[:, :, None] * ratios[:, None, :, : boxes.shape[-1]]  # (1, Q, L, 2 or 4)
            if self.reference_head is not None:
                positions = self._positions(level_boxes)
            recording = None if trace is None else (trace, index)
            with stage(trace, f"decoder {index + 1}"):
                content = layer(content, positions, level_boxes, memory, pyramid, padding, None, recording)
            if trace is not None:
                trace.end_step(content)
            if trace is not None or index == last:
                states.append(self.norm(content))
                starts.append(boxes)
            if box_head is not None and index < last:
                boxes = move_boxes(boxes, box_head(content), self.eps)
        return states, starts
