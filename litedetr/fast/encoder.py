"""The interleaved encoder for inference: one memory, whose rows are written anew where they are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from litedetr.encoder import EncoderLayer, InterleavedEncoder
from litedetr.fast.dense import ROWS
from litedetr.fast.parts import fast_copy
from litedetr.pyramid import FeaturePyramid
from litedetr.schedule import EncoderStep
from litedetr.trace import Trace


class FastEncoder(InterleavedEncoder):
    """An encoder for inference, made from another one, with which it shares nothing.

    Args:
        encoder: it stays as it is.
        dtype: of the weights and of the memory, float32 or bfloat16.
    """

    def __init__(self, encoder: InterleavedEncoder, dtype: torch.dtype):
        nn.Module.__init__(self)
        self.schedule, self.steps, self.dtype = encoder.schedule, encoder.steps, dtype
        self.layers = fast_copy(encoder.layers, dtype)

    @torch.inference_mode()
    def forward(self, pyramid: FeaturePyramid, trace: Trace | None = None) -> Tensor:
        """Pyramid -> memory (B, S, d) in the encoder's dtype."""
        own = replace(pyramid, tokens=pyramid.tokens.to(self.dtype, copy=True), positions=pyramid.positions.to(self.dtype))
        return super().forward(own, trace)

    def update(
        self,
        layer: EncoderLayer,
        step: EncoderStep,
        memory: Tensor,
        pyramid: FeaturePyramid,
        padding: Tensor | None,
        trace: Trace | None = None,
    ) -> Tensor:
        """One step, written into `memory`: once attention has read it, every token needs its own row only."""
        first, low_tokens = self.queries(step, pyramid)
        attended = self.attend(layer, step, memory, pyramid, padding, trace)
        narrow = low_tokens if layer.low_ffn is not None else 0
        for queries, found in zip(memory[:, first:].unbind(), attended.unbind(), strict=True):
            if narrow:
                _finish(layer.norm, layer.low_ffn, queries[:narrow], found[:narrow])
            _finish(layer.norm, layer.ffn, queries[narrow:], found[narrow:])
        if trace is not None:
            trace.end_step(memory[:, first:].clone())
        return memory


def _finish(norm: nn.Module, ffn: nn.Module, queries: Tensor, attended: Tensor) -> None:
    """Skip, norm and feed-forward network of the tokens (Q, d), in pieces that stay in the cache, in place."""
    for rows, found in zip(queries.split(ROWS), attended.split(ROWS), strict=True):
        rows.copy_(ffn(norm(rows + found)))
