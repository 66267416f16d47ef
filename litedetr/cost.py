"""Multiply-adds per stage and per encoder step, counted as the paper counts them.

One multiply-add counts as one. Counted: convolutions, linear layers and matrix products; norms, 5 per element; grid sampling,
4 per sampled element (key-aware attention only: published counts leave out the plain operator). Ignored: element-wise
operations, softmax.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from litedetr.backbones import build_backbone
from litedetr.config import DetectorConfig
from litedetr.schedule import EncoderSchedule, EncoderStep

NORM = 5
SAMPLE = 4


@dataclass(frozen=True)
class Cost:
    """GMACs of one photo.

    Attributes:
        backbone, neck, encoder, selection, decoder: per stage; the decoder includes its heads.
        steps: of every encoder step, in order.
        tokens: per level, finest first.
    """

    backbone: float
    neck: float
    encoder: float
    selection: float
    decoder: float
    steps: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def total(self) -> float:
        return self.backbone + self.neck + self.encoder + self.selection + self.decoder


@lru_cache(maxsize=64)
def gmacs(config: DetectorConfig, size: tuple[int, int]) -> Cost:
    """Cost of a detector for a network input of (height, width) pixels."""
    backbone, maps = _backbone(config, size)
    shapes = level_shapes(config, size)
    tokens = tuple(height * width for height, width in shapes)
    steps = tuple(step_macs(config, step, tokens) / 1e9 for step in config.encoder_schedule.steps())
    return Cost(
        backbone=backbone / 1e9,
        neck=_neck(config, maps, tokens) / 1e9,
        encoder=sum(steps),
        selection=_selection(config, sum(tokens)) / 1e9,
        decoder=_decoder(config, sum(tokens)) / 1e9,
        steps=steps,
        tokens=tokens,
    )


def full_encoder(config: DetectorConfig) -> DetectorConfig:
    """The same detector with the full encoder of as many layers and plain attention: what the paper compares with."""
    layers = len(config.encoder_schedule.steps())
    schedule = str(EncoderSchedule.full(config.levels, layers))
    return replace(config, schedule=schedule, key_aware=False, proj_key=False, low_ffn=None)


def level_shapes(config: DetectorConfig, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(height, width) of every level, finest first, for an input of (height, width) pixels."""
    _, maps = _backbone(config, size)
    shapes = [shape for _, shape in maps]
    while len(shapes) < config.levels:
        shapes.append(tuple((side - 1) // 2 + 1 for side in shapes[-1]))
    return tuple(shapes)


def step_macs(config: DetectorConfig, step: EncoderStep, tokens: tuple[int, ...]) -> int:
    """Multiply-adds of one encoder step for the tokens of each level, finest first."""
    C, low_levels = config.width, config.encoder_schedule.low
    queries = sum(tokens[level] for level in step.query_levels)
    low = sum(tokens[level] for level in step.query_levels if level < low_levels)
    narrow = config.low_ffn if config.low_ffn and step.kind == "all" else config.encoder_ffn
    feed_forward = 2 * C * config.encoder_ffn * (queries - low) + 2 * C * narrow * low
    return _attention(config, sum(tokens), queries, config.proj_key) + feed_forward + 2 * NORM * C * queries


def _attention(config: DetectorConfig, tokens: int, queries: int, proj_key: bool) -> int:
    C, points = config.width, config.levels * config.points
    offsets = config.heads * points * 2
    total = tokens * C * C * (2 if proj_key else 1) + queries * (C * C + C * offsets)  # values, output, offsets
    if not config.key_aware:
        return total + queries * C * config.heads * points
    return total + queries * (C * C + 2 * points * C + 2 * SAMPLE * points * C)  # queries, q.k and weights.v, sampling


def _neck(config: DetectorConfig, maps: list[tuple[int, tuple[int, int]]], tokens: tuple[int, ...]) -> int:
    C = config.width
    total = sum(channels * C * height * width for channels, (height, width) in maps)
    source = maps[-1][0]
    for level in range(len(maps), config.levels):
        total += 9 * source * C * tokens[level]
        source = C
    return total + NORM * C * sum(tokens)


def _selection(config: DetectorConfig, tokens: int) -> int:
    C, queries = config.width, min(config.queries, tokens)
    return tokens * (C * C + NORM * C + C * config.num_classes) + queries * (2 * C * C + 4 * C)


def _decoder(config: DetectorConfig, tokens: int) -> int:
    C, Q = config.width, min(config.queries, tokens)
    layer = (
        Q * 4 * C * C + 2 * Q * Q * C  # self-attention
        + _attention(config, tokens, Q, proj_key=False)
        + Q * 2 * C * config.decoder_ffn
        + Q * 3 * C * C  # query positions
        + 4 * NORM * Q * C
        + Q * (2 * (2 * C * C + 4 * C) + C * config.num_classes)  # boxes (refinement and output), classes
    )  # fmt: skip
    return config.decoder_layers * layer


@lru_cache(maxsize=256)
def _backbone(config: DetectorConfig, size: tuple[int, int]) -> tuple[int, list[tuple[int, tuple[int, int]]]]:
    """Multiply-adds of the backbone's convolutions and norms, and (channels, (height, width)) of each map, without computing."""
    counted = 0

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
            counted += kernel * output.numel()

    with torch.device("meta"):
        backbone = build_backbone(config)
        for module in backbone.modules():
            module.register_forward_hook(count)
        maps = backbone(torch.empty(1, 3, *size))
    return counted, [(m.shape[1], (m.shape[2], m.shape[3])) for m in maps]
