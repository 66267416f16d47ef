"""The interleaved encoder (paper, section 3.2): coarse scales are updated often, fine ones seldom."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from litedetr.attention import DeformableAttention, KeyAwareDeformableAttention
from litedetr.config import DetectorConfig
from litedetr.feedforward import FeedForward
from litedetr.pyramid import FeaturePyramid
from litedetr.schedule import EncoderSchedule, EncoderStep
from litedetr.trace import Trace, stage


class EncoderLayer(nn.Module):
    """Deformable attention and a feed-forward network, post-norm.

    Args:
        attention: the attention module.
        width: d; ffn: hidden width of the feed-forward network.
        low_ffn: hidden width of a second network for low-level tokens, None where they share the first.
    """

    def __init__(self, attention: DeformableAttention, width: int, ffn: int, low_ffn: int | None = None):
        super().__init__()
        self.attention = attention
        self.norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, ffn)
        self.low_ffn = FeedForward(width, low_ffn) if low_ffn else None

    def forward(
        self,
        memory: Tensor,
        first: int,
        low_tokens: int,
        pyramid: FeaturePyramid,
        padding: Tensor | None,
        trace: tuple[Trace, EncoderStep] | None = None,
    ) -> Tensor:
        """(B, S, d) memory -> alike: the tokens from `first` on query the whole memory and are replaced, the others stay.

        Args:
            low_tokens: how many of the queries, the first ones, are low-level.
            pyramid: the memory's layout; padding: (B, S) bool, True = padding, None where nothing is.
            trace: where this step is recorded.
        """
        attended = self.attend(memory, first, pyramid, padding, trace)
        updated = self.feed_forward(self.norm(memory[:, first:] + attended), low_tokens)
        if trace is not None:
            trace[0].end_step(updated)
        return torch.cat((memory[:, :first], updated), dim=1) if first else updated

    def attend(
        self,
        memory: Tensor,
        first: int,
        pyramid: FeaturePyramid,
        padding: Tensor | None,
        trace: tuple[Trace, EncoderStep] | None = None,
    ) -> Tensor:
        """What the queries, the tokens from `first` on, get from the whole memory: (B, Q, d)."""
        query, reference_points = memory[:, first:] + pyramid.positions[:, first:], pyramid.reference_points[:, first:]
        sampled = trace is not None and trace[0].samples
        attended = self.attention(query, reference_points, memory, pyramid.shapes, padding, return_sampling=sampled)
        attended, sampling = attended if sampled else (attended, None)
        if trace is not None:
            record, step = trace
            record.add_encoder_step(step, first, reference_points, sampling, attended, self.attention)
        return attended

    def feed_forward(self, x: Tensor, low_tokens: int) -> Tensor:
        """(B, Q, d), of which the first `low_tokens` are low-level ones."""
        if self.low_ffn is None or low_tokens == 0:
            return self.ffn(x)
        return torch.cat((self.low_ffn(x[:, :low_tokens]), self.ffn(x[:, low_tokens:])), dim=1)


class InterleavedEncoder(nn.Module):
    """Runs an `EncoderSchedule` over a `FeaturePyramid`. The full encoder is `EncoderSchedule.full()`.

    In a model of your own: ``memory = encoder(FeaturePyramid.from_maps(maps, level_embed))``; docs/building-blocks.md gives it to
    a plain DETR.

    Args:
        schedule: which scales each layer updates.
        width: d; heads: M; points: P; ffn: hidden width of the feed-forward networks.
        low_ffn: hidden width of the network for low-level tokens in "all" steps, None for the wide one.
        key_aware: KDA instead of plain deformable attention; same_loc, proj_key: see `litedetr.attention`.
    """

    def __init__(
        self,
        schedule: EncoderSchedule,
        width: int = 256,
        heads: int = 8,
        points: int = 4,
        ffn: int = 2048,
        low_ffn: int | None = None,
        key_aware: bool = True,
        same_loc: bool = False,
        proj_key: bool = False,
    ):
        super().__init__()
        self.schedule = schedule
        self.steps = schedule.steps()
        shape = (width, heads, schedule.levels, points, same_loc)
        self.layers = nn.ModuleList(
            EncoderLayer(
                KeyAwareDeformableAttention(*shape, proj_key=proj_key) if key_aware else DeformableAttention(*shape),
                width,
                ffn,
                low_ffn if step.kind == "all" and schedule.low else None,
            )
            for step in self.steps
        )

    @classmethod
    def from_config(cls, config: DetectorConfig) -> InterleavedEncoder:
        """A detector's encoder, with random weights."""
        c = config
        shape = (c.width, c.heads, c.points, c.encoder_ffn, c.low_ffn)
        return cls(c.encoder_schedule, *shape, c.key_aware, c.same_loc, c.proj_key)

    def forward(self, pyramid: FeaturePyramid, trace: Trace | None = None) -> Tensor:
        """Pyramid -> memory (B, S, d): the tokens after every step."""
        memory, padding = pyramid.tokens, pyramid.padding
        for step in self.steps:
            first, low_tokens = query_range(self.schedule, step, pyramid)
            with stage(trace, step.name):
                recording = None if trace is None else (trace, step)
                memory = self.layers[step.index](memory, first, low_tokens, pyramid, padding, recording)
        return memory

    def with_steps(self, steps: Iterable[EncoderStep]) -> InterleavedEncoder:
        """An encoder of the same layers that walks other steps: some of its own, or its own with other `query_levels`."""
        other = copy.copy(self)
        other.steps = tuple(steps)
        return other

    def update_again(self, index: int, memory: Tensor, pyramid: FeaturePyramid) -> Tensor:
        """(S, d): the tokens after a step, from those (1, S, d) before it."""
        step = self.steps[index]
        return self.layers[step.index](memory, *query_range(self.schedule, step, pyramid), pyramid, pyramid.padding)[0]

    def attend_again(self, index: int, memory: Tensor, pyramid: FeaturePyramid, trace: Trace) -> None:
        """Record what a step's attention does with the tokens (1, S, d) before it."""
        step = self.steps[index]
        first, _ = query_range(self.schedule, step, pyramid)
        self.layers[step.index].attend(memory, first, pyramid, pyramid.padding, (trace, step))


def query_range(schedule: EncoderSchedule, step: EncoderStep, pyramid: FeaturePyramid) -> tuple[int, int]:
    """Index of the first token that is a query in a step (all behind it are, too), and how many of these are low-level."""
    first = pyramid.first_token(step.query_levels[0])
    return first, max(pyramid.first_token(schedule.low) - first, 0)
