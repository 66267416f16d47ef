"""About how much memory a photo needs at most, beyond the weights: by a model's config alone, before anything is built."""

from __future__ import annotations

from litedetr.config import DetectorConfig
from litedetr.cost.macs import level_shapes

KEPT_STEPS = 4
"""Steps of traces that a page holds whole at a time."""


def peak_bytes(config: DetectorConfig, size: tuple[int, int]) -> int:
    """For one photo of (height, width) pixels in the network, traced, in float32: what the dearest stage works with, the outputs
    of all layers, and the trace. A bound from above: with the fused kernels it takes less.
    """
    c, pixels = config, size[0] * size[1]
    shapes = level_shapes(config, size)
    levels = [height * width for height, width in shapes]
    tokens = sum(levels)
    queries = (min(c.queries, tokens) if c.two_stage else c.queries) + c.one_to_many_queries
    steps = [sum(levels[level] for level in step.query_levels) for step in c.encoder_schedule.steps()]
    backbone = 3 * pixels + 3 * (pixels // 4) * c.backbone_width
    encoder = 4 * tokens * c.width + max(_step(config, asking, c.encoder_ffn) for asking in steps)
    selection = 3 * tokens * c.class_outputs if c.two_stage else 0
    decoder = 2 * tokens * c.width + _step(config, queries, c.decoder_ffn) + 2 * c.heads * queries**2
    outputs = 2 * (c.decoder_layers + 2) * queries * (c.class_outputs + 4)
    trace = c.width * (sum(steps) + tokens + 4 * c.decoder_layers * queries)
    trace += sum(sorted(_traced(config, asking) for asking in [*steps, *[queries] * c.decoder_layers])[-KEPT_STEPS:])
    return 4 * (max(backbone, encoder, selection, decoder) + outputs + trace)


def _step(config: DetectorConfig, queries: int, hidden: int) -> int:
    """Numbers that a layer works with: attention with its samples, then the feed-forward network."""
    samples = config.levels * config.points
    attention = queries * (4 * config.width + 5 * config.heads * samples + config.width * samples)
    return max(attention, queries * (3 * config.width + 2 * hidden))


def _traced(config: DetectorConfig, queries: int) -> int:
    return queries * (3 * config.heads * config.levels * config.points + 3 * config.width)
