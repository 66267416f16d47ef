"""The interleaved encoder for inference: one memory, whose rows are written anew where they are."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from litedetr.encoder import EncoderLayer, InterleavedEncoder, step_queries
from litedetr.fast.attention import FastAttention, Places
from litedetr.fast.dense import AddNorm, DenseFeedForward, pieces
from litedetr.pyramid import FeaturePyramid
from litedetr.schedule import EncoderStep
from litedetr.trace import Trace, stage


class FastEncoderLayer(nn.Module):
    """`EncoderLayer` for inference, of one photo."""

    def __init__(self, layer: EncoderLayer, dtype: torch.dtype):
        super().__init__()
        self.attention = FastAttention(layer.attention, dtype)
        self.norm = AddNorm(layer.norm)
        self.ffn = DenseFeedForward(layer.ffn, dtype)
        self.low_ffn = None if layer.low_ffn is None else DenseFeedForward(layer.low_ffn, dtype)

    def forward(
        self,
        memory: Tensor,
        asking: Tensor,
        first: int,
        low_tokens: int,
        layout: tuple[Tensor, Places, FeaturePyramid, Tensor | None],
        last: bool,
        trace: tuple[Trace, EncoderStep] | None = None,
    ) -> None:
        """The tokens from `first` on, of memory (S, d), are overwritten; what they have become, plus positions, goes to `asking`
        (S, d), unless this is the last step.

        Args:
            low_tokens: how many of the queries, the first ones, are low-level.
            layout: positions (S, d), places, the pyramid, and (S,) bool True = padding or None, of all tokens.
            trace: where this step is recorded.
        """
        positions, places, pyramid, padding = layout
        attended, sampling = self.attention(
            asking[first:], places[first:], memory, pyramid.shapes, padding, return_sampling=trace is not None
        )
        if trace is not None:
            record, step = trace
            reference_points = pyramid.reference_points[:, first:]
            record.add_encoder_step(step, first, reference_points, sampling, attended[None], self.attention)
        self._finish(memory[first:], attended, low_tokens, positions[first:], None if last else asking[first:])
        if trace is not None:
            record.end_step(memory[None, first:].clone())  # the next step overwrites them

    def _finish(self, queries: Tensor, attended: Tensor, low_tokens: int, positions: Tensor, asking: Tensor | None) -> None:
        """What follows the attention: queries (Q, d) are overwritten, in pieces that stay in the cache."""
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
            places = Places.of(pyramid.reference_points[photo], pyramid.shapes, self.layers[0].attention.points)
            asking = tokens + positions[photo]  # of all tokens, kept up to date
            layout = positions[photo], places, pyramid, None if padding is None else padding[photo]
            for step in self.steps:
                first, low_tokens = step_queries(self.schedule, step, pyramid)
                with stage(trace, step.name):
                    recording = None if trace is None else (trace, step)
                    self.layers[step.index](tokens, asking, first, low_tokens, layout, step is self.steps[-1], recording)
        return memory

    def with_steps(self, steps: Iterable[EncoderStep]) -> FastEncoder:
        """See `InterleavedEncoder.with_steps`."""
        other = copy.copy(self)
        other.steps = tuple(steps)
        return other
