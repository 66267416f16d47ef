"""The interleaved encoder for inference: one memory, whose rows are written anew where they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litedetr.encoder import EncoderLayer, InterleavedEncoder
from litedetr.fast.attention import FastAttention, Places
from litedetr.fast.dense import AddNorm, DenseFeedForward, pieces
from litedetr.pyramid import FeaturePyramid
from litedetr.trace import Trace, stage


class FastEncoderLayer(nn.Module):
    """`EncoderLayer` for inference, of one photo."""

    def __init__(self, layer: EncoderLayer, dtype: torch.dtype):
        super().__init__()
        self.attention = FastAttention(layer.attention, dtype)
        self.norm = AddNorm(layer.norm)
        self.ffn = DenseFeedForward(layer.ffn, dtype)
        self.low_ffn = None if layer.low_ffn is None else DenseFeedForward(layer.low_ffn, dtype)

    def finish(self, queries: Tensor, attended: Tensor, low_tokens: int, positions: Tensor | None, asking: Tensor | None) -> None:
        """What follows the attention: queries (Q, d) are overwritten, in pieces that stay in the cache.

        Args:
            low_tokens: how many of the queries, the first ones, are low-level.
            positions, asking: (Q, d); what the queries have become, plus positions, is written to `asking`, if given.
        """
        narrow = low_tokens if self.low_ffn is not None else 0
        for ffn, part in ((self.low_ffn, slice(narrow)), (self.ffn, slice(narrow, None))):
            tokens, found = queries[part], attended[part]
            shift, shifted = (None, None) if asking is None else (positions[part], asking[part])
            for rows in pieces(len(tokens)):
                normed = self.norm(tokens[rows], found[rows])
                if shift is None:
                    ffn(normed, tokens[rows])
                else:
                    ffn(normed, tokens[rows], shift[rows], shifted[rows])


class FastEncoder(nn.Module):
    """`InterleavedEncoder` for inference, made from one, with which it shares nothing.

    Every layer projects all tokens into values by itself, although a block's low-level tokens change at its end only: each layer
    has its own matrix, so what could be shared is one wide product, and that gains nothing (docs/speed.md).

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
        for photo, tokens in enumerate(memory):
            hidden = None if padding is None else padding[photo]
            self._update(tokens, positions[photo], pyramid.reference_points[photo], pyramid, hidden, trace)
        return memory

    def _update(
        self,
        memory: Tensor,
        positions: Tensor,
        reference_points: Tensor,
        pyramid: FeaturePyramid,
        padding: Tensor | None,
        trace: Trace | None,
    ) -> None:
        """All steps, on the tokens (S, d) of one photo."""
        places = Places.of(reference_points, pyramid.shapes, self.layers[0].attention.points)
        asking = memory + positions  # of all tokens, kept up to date
        for step, layer in zip(self.steps, self.layers, strict=True):
            with stage(trace, step.name):
                first = pyramid.first_token(step.query_levels[0])
                low_tokens = max(pyramid.first_token(self.schedule.low) - first, 0)
                queries, rows = memory[first:], slice(first, None)
                attended, sampling = layer.attention(
                    asking[rows],
                    places[rows],
                    memory,
                    pyramid.shapes,
                    padding,
                    return_sampling=trace is not None,
                )
                done = step is self.steps[-1]
                layer.finish(queries, attended, low_tokens, positions[rows], None if done else asking[rows])
                if trace is not None:
                    trace.add_encoder_step(step, first, reference_points[None, rows], sampling, attended[None], layer.attention)
                    trace.end_step(queries[None].clone())  # the next step overwrites them
