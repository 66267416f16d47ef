"""The interleaved encoder for inference: one memory, whose rows are written anew where they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litedetr.attention import Sampling
from litedetr.encoder import EncoderLayer, InterleavedEncoder
from litedetr.fast.attention import FastAttention, Places, Workspace
from litedetr.fast.dense import ROWS, DenseFeedForward, frozen_norm
from litedetr.pyramid import FeaturePyramid
from litedetr.trace import Trace, stage


class FastEncoderLayer(nn.Module):
    """`EncoderLayer` for inference, of one photo."""

    def __init__(self, layer: EncoderLayer, dtype: torch.dtype):
        super().__init__()
        self.attention = FastAttention(layer.attention, dtype)
        self.norm = frozen_norm(layer.norm, dtype)
        self.ffn = DenseFeedForward(layer.ffn, dtype)
        self.low_ffn = None if layer.low_ffn is None else DenseFeedForward(layer.low_ffn, dtype)

    def finish(self, queries: Tensor, core: Tensor, low_tokens: int) -> list[Tensor]:
        """All that follows the attention core (Q, d): queries are overwritten, in pieces that stay in the cache.

        Args:
            low_tokens: how many of the queries, the first ones, are low-level.

        Returns:
            What attention found, piece by piece.
        """
        found = []
        cut = low_tokens if self.low_ffn is not None else 0
        for start, end, ffn in ((0, cut, self.low_ffn), (cut, len(queries), self.ffn)):
            for first in range(start, end, ROWS):
                rows = slice(first, min(first + ROWS, end))
                found.append(self.attention.output_proj(core[rows]))
                queries[rows] = ffn(self.norm(queries[rows] + found[-1]))
        return found


class FastEncoder(nn.Module):
    """`InterleavedEncoder` for inference, made from one, with which it shares nothing.

    Args:
        encoder: it stays as it is.
        dtype: of the weights and of the memory, float32 or bfloat16.
    """

    def __init__(self, encoder: InterleavedEncoder, dtype: torch.dtype):
        super().__init__()
        self.schedule, self.steps, self.dtype = encoder.schedule, encoder.steps, dtype
        self.layers = nn.ModuleList(FastEncoderLayer(layer, dtype) for layer in encoder.layers)

    @torch.inference_mode()
    def forward(self, pyramid: FeaturePyramid, trace: Trace | None = None) -> Tensor:
        """Pyramid -> memory (B, S, d) in the encoder's dtype."""
        memory = pyramid.tokens.to(self.dtype, copy=True)
        positions = pyramid.positions.to(self.dtype)
        padding = pyramid.padding
        space = Workspace(keep=trace is not None)
        for photo, tokens in enumerate(memory):
            hidden = None if padding is None else padding[photo]
            self._update(tokens, positions[photo], pyramid.reference_points[photo], pyramid, hidden, space, trace)
        return memory

    def _update(
        self,
        memory: Tensor,
        positions: Tensor,
        reference_points: Tensor,
        pyramid: FeaturePyramid,
        padding: Tensor | None,
        space: Workspace,
        trace: Trace | None,
    ) -> None:
        """All steps, on the tokens (S, d) of one photo."""
        places = Places.of(reference_points, pyramid.shapes, self.layers[0].attention.points)
        for step, layer in zip(self.steps, self.layers, strict=True):
            with stage(trace, step.name):
                first = pyramid.first_token(step.query_levels[0])
                queries, asking = memory[first:], slice(first, None)
                core, sampling = layer.attention(
                    queries, positions[asking], places[asking], memory, pyramid.shapes, padding, space, trace is not None
                )
                found = layer.finish(queries, core, max(pyramid.first_token(self.schedule.low) - first, 0))
            if trace is not None:
                _record(trace, step, first, reference_points[None, asking], sampling, found, layer.attention, queries)


def _record(trace: Trace, step, first: int, reference_points: Tensor, sampling: Sampling, found, attention, queries) -> None:
    """One step, with copies of what the next one overwrites."""
    trace.add_encoder_step(step, first, reference_points, sampling, torch.cat(found)[None], attention)
    trace.end_step(queries[None].clone())
