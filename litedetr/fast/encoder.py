"""The interleaved encoder for inference: one memory, whose rows are written anew where they are."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from litedetr.encoder import EncoderLayer, InterleavedEncoder, query_range
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
            for rows in pieces(*tokens.shape):
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
        for photo in range(len(memory)):
            walk = self._walk(memory, pyramid, photo)
            for index, step in enumerate(self.steps):
                with stage(trace, step.name):
                    self._update(index, walk, trace)
        return memory

    def _walk(self, memory: Tensor, pyramid: FeaturePyramid, photo: int) -> _Walk:
        """One photo of a batch before its first step."""
        return _Walk(
            memory[photo],
            pyramid.positions[photo].to(self.dtype),
            pyramid.reference_points[photo],
            Places.of(pyramid.reference_points[photo], pyramid.shapes, self.layers[0].attention.points),
            pyramid,
            None if pyramid.padding is None else pyramid.padding[photo],
        )

    def _update(self, index: int, walk: _Walk, trace: Trace | None = None) -> None:
        """One step: the tokens of its scales are written anew."""
        step = self.steps[index]
        first, low_tokens = query_range(self.schedule, step, walk.pyramid)
        attended = self._attend(index, first, walk, trace)
        queries, rows = walk.memory[first:], slice(first, None)
        done = index == len(self.steps) - 1
        self.layers[step.index].finish(queries, attended, low_tokens, walk.positions[rows], None if done else walk.asking[rows])
        if trace is not None:
            trace.end_step(queries[None], overwritten=True)

    def _attend(self, index: int, first: int, walk: _Walk, trace: Trace | None = None) -> Tensor:
        """What the step's queries, the tokens from `first` on, get from the whole memory: (Q, d)."""
        rows, attention = slice(first, None), self.layers[self.steps[index].index].attention
        attended, sampling = attention(
            walk.asking[rows],
            walk.places[rows],
            walk.memory,
            walk.pyramid.shapes,
            walk.padding,
            return_sampling=trace is not None and trace.samples,
        )
        if trace is not None:
            references = walk.reference_points[None, rows]
            trace.add_encoder_step(self.steps[index], first, references, sampling, attended[None], attention)
        return attended

    def with_steps(self, steps: Iterable[EncoderStep]) -> FastEncoder:
        """As `InterleavedEncoder.with_steps`."""
        other = copy.copy(self)
        other.steps = tuple(steps)
        return other

    @torch.inference_mode()
    def update_again(self, index: int, memory: Tensor, pyramid: FeaturePyramid) -> Tensor:
        """As `InterleavedEncoder.update_again`."""
        walk = self._walk(memory.to(self.dtype, copy=True), pyramid, 0)
        self._update(index, walk)
        return walk.memory

    @torch.inference_mode()
    def attend_again(self, index: int, memory: Tensor, pyramid: FeaturePyramid, trace: Trace) -> None:
        """As `InterleavedEncoder.attend_again`."""
        walk = self._walk(memory, pyramid, 0)
        self._attend(index, pyramid.first_token(self.steps[index].query_levels[0]), walk, trace)


@dataclass
class _Walk:
    """One photo on its way through the encoder.

    Attributes:
        memory: (S, d) the tokens, written anew step by step.
        positions: (S, d) of the encoder's dtype.
        asking: (S, d) memory + positions, kept up to date.
        reference_points: (S, L, 2), and places: the same as the attention reads them.
        padding: (S,) bool, None where nothing is padding.
    """

    memory: Tensor
    positions: Tensor
    reference_points: Tensor
    places: Places
    pyramid: FeaturePyramid
    padding: Tensor | None
    asking: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.asking = self.memory + self.positions
