"""Multiply-adds per stage and per encoder step, counted as the paper counts them.

One multiply-add counts as one. Counted: convolutions, linear layers and matrix products; norms, 5 per element; grid sampling,
4 per sampled element (key-aware attention only: published counts leave out the plain operator, and sample keys and values apart
even where they are the same numbers). Ignored: element-wise operations, softmax.

What a `Detector` here computes is not in every detail what the published implementations compute; a `Rule` says what is counted,
`OURS` for this project and `published_rule` for theirs. The largest difference: the published DINO, Deformable DETR and H-DETR
predict a box for every encoder token (2.4 GMACs at 800 x 1066), this project only for the chosen ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from litedetr.backbones import backbone_of
from litedetr.config import DetectorConfig
from litedetr.families import Rule, family_of
from litedetr.meta import OnMeta
from litedetr.network import Network
from litedetr.schedule import EncoderSchedule, EncoderStep

NORM = 5
SAMPLE = 4
SQUARE = 512
"""Side of the picture for which a backbone of convolutions is counted, a multiple of every stride."""


OURS = Rule()


def published_rule(config: DetectorConfig) -> Rule:
    """What the published implementation of this model computes."""
    return family_of(config).implementation(config).rule


@dataclass(frozen=True)
class Cost:
    """GMACs of one photo.

    Attributes:
        backbone, neck, encoder, selection, decoder: per stage; the decoder includes its heads.
        heads: the decoder's class and box heads alone.
        steps: of every encoder step, in order.
        tokens: per level, finest first.
    """

    backbone: float
    neck: float
    encoder: float
    selection: float
    decoder: float
    heads: float
    steps: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def total(self) -> float:
        return self.backbone + self.neck + self.encoder + self.selection + self.decoder


@lru_cache(maxsize=256)
def gmacs(config: DetectorConfig, size: tuple[int, int], rule: Rule = OURS) -> Cost:
    """Cost of a detector for a network input of (height, width) pixels."""
    backbone, maps = _maps(config, size)
    shapes = level_shapes(config, size)
    tokens = tuple(height * width for height, width in shapes)
    steps = tuple(step_macs(config, step, tokens, rule) / 1e9 for step in config.encoder_schedule.steps())
    return Cost(
        backbone=backbone / 1e9,
        neck=(_neck(config, maps, tokens) + rule.masks * sum(tokens)) / 1e9,
        encoder=sum(steps),
        selection=_selection(config, sum(tokens), rule) / 1e9,
        decoder=(_decoder(config, sum(tokens), rule) + _heads(config, sum(tokens), rule)) / 1e9,
        heads=_heads(config, sum(tokens), rule) / 1e9,
        steps=steps,
        tokens=tokens,
    )


@lru_cache(maxsize=64)
def parameters(config: DetectorConfig) -> int:
    """Numbers in a detector that can be trained, without building it in memory."""
    with OnMeta():
        return sum(parameter.numel() for parameter in Network(replace(config, dense_head=False)).parameters())


@lru_cache(maxsize=256)
def full_encoder(config: DetectorConfig) -> DetectorConfig:
    """The same detector with the full encoder of as many layers and plain attention: what the paper compares with."""
    layers = len(config.encoder_schedule.steps())
    schedule = str(EncoderSchedule.full(config.levels, layers))
    return replace(config, schedule=schedule, key_aware=False, proj_key=False, low_ffn=None)


def level_shapes(config: DetectorConfig, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(height, width) of every level, finest first, for an input of (height, width) pixels."""
    _, maps = _maps(config, size)
    shapes = [shape for _, shape in maps]
    while len(shapes) < config.levels:
        shapes.append(tuple((side - 1) // 2 + 1 for side in shapes[-1]))
    return tuple(shapes)


def step_macs(config: DetectorConfig, step: EncoderStep, tokens: tuple[int, ...], rule: Rule = OURS) -> int:
    """Multiply-adds of one encoder step for the tokens of each level, finest first."""
    C, low_levels = config.width, config.encoder_schedule.low
    queries = sum(tokens[level] for level in step.query_levels)
    low = sum(tokens[level] for level in step.query_levels if level < low_levels)
    narrow = config.low_ffn if config.low_ffn and step.kind == "all" else config.encoder_ffn
    feed_forward = 2 * C * config.encoder_ffn * (queries - low) + 2 * C * narrow * low
    attention = _attention(config, sum(tokens), queries, rule, config.proj_key, config.same_loc)
    return attention + feed_forward + 2 * NORM * C * queries


def _attention(
    config: DetectorConfig, tokens: int, queries: int, rule: Rule, proj_key: bool = False, same_loc: bool = False
) -> int:
    C, points = config.width, config.levels * config.points
    offsets = config.heads * config.points * 2 * (1 if same_loc else config.levels)
    projected = 2 if proj_key and config.key_aware else 1
    total = tokens * C * C * projected + queries * (C * C + C * offsets)  # values (and keys), output, offsets
    if not config.key_aware:
        return total + queries * C * (config.heads * points + rule.plain_sampling * SAMPLE * points)
    return total + queries * (C * C + 2 * points * C + 2 * SAMPLE * points * C)  # queries, q.k and weights.v, sampling


def _neck(config: DetectorConfig, maps: list[tuple[int, tuple[int, int]]], tokens: tuple[int, ...]) -> int:
    C = config.width
    total = sum(channels * C * height * width for channels, (height, width) in maps)
    source = maps[-1][0]
    for level in range(len(maps), config.levels):
        total += 9 * source * C * tokens[level]
        source = C
    return total + NORM * C * sum(tokens)


def _selection(config: DetectorConfig, tokens: int, rule: Rule) -> int:
    C, Q = config.width, _queries(config, tokens)
    if not config.two_stage:
        return Q * 2 * C  # reference points of the learned queries
    total = tokens * (C * C + NORM * C + C * config.class_outputs)
    total += (tokens if rule.every_token_box else Q) * _box_head(C)
    if rule.classes_again:
        total += Q * C * config.class_outputs
    if not family_of(config).boxes_give_positions:
        total += Q * (4 * C * C + 2 * NORM * C)  # positions and contents from boxes
    return total


def _decoder(config: DetectorConfig, tokens: int, rule: Rule) -> int:
    C, Q = config.width, _queries(config, tokens)
    layer = (
        Q * 4 * C * C + (2 if rule.query_key_products else 1) * Q * Q * C  # self-attention
        + _attention(config, tokens, Q, rule)
        + Q * 2 * C * config.decoder_ffn
        + 3 * NORM * Q * C
    )  # fmt: skip
    if family_of(config).boxes_give_positions:
        layer += Q * (3 * C * C + NORM * C)  # query positions, final norm
    return config.decoder_layers * layer


def _heads(config: DetectorConfig, tokens: int, rule: Rule) -> int:
    """Classes and boxes of every layer; the box heads run a second time where they move the references."""
    C, layers = config.width, config.decoder_layers
    refinements = layers - (not rule.last_refinement) if config.box_refine else 0
    return _queries(config, tokens) * ((layers + refinements) * _box_head(C) + layers * C * config.class_outputs)


def _box_head(C: int) -> int:
    return 2 * C * C + 4 * C


def _queries(config: DetectorConfig, tokens: int) -> int:
    return min(config.queries, tokens) if config.two_stage else config.queries


def _maps(config: DetectorConfig, size: tuple[int, int]) -> tuple[int, list[tuple[int, tuple[int, int]]]]:
    """Multiply-adds of the backbone, and (channels, (height, width)) of each map that the neck takes."""
    macs, maps = _backbone(config.backbone, config.backbone_width, config.dilation, size)
    return macs, maps[-config.levels :]


@lru_cache(maxsize=256)
def _backbone(name: str, width: int, dilation: bool, size: tuple[int, int]) -> tuple[int, list[tuple[int, tuple[int, int]]]]:
    """Multiply-adds of the backbone, and (channels, (height, width)) of each map, without computing.

    What consists of convolutions does the same at every place of its maps, and is counted once: every new size would take as long
    as a quarter of a small detector's run.
    """
    layers, maps = _counted(name, width, dilation, (SQUARE, SQUARE))
    if any(shape is None for _, shape in layers):
        layers, maps = _counted(name, width, dilation, size)
        return sum(macs for macs, _ in layers), maps

    def places(shape: tuple[int, int]) -> tuple[int, int]:
        height, width = (-(-length * side // SQUARE) for length, side in zip(size, shape, strict=True))
        return height, width

    counted = sum(macs // math.prod(shape) * math.prod(places(shape)) for macs, shape in layers if shape is not None)
    return counted, [(channels, places(shape)) for channels, shape in maps]


@lru_cache(maxsize=256)
def _counted(
    name: str, width: int, dilation: bool, size: tuple[int, int]
) -> tuple[list[tuple[int, tuple[int, int] | None]], list[tuple[int, tuple[int, int]]]]:
    """Multiply-adds of each layer with (height, width) of its output, None for what is no convolution; and the maps."""
    layers: list[tuple[int, tuple[int, int] | None]] = []
    config = DetectorConfig(backbone=name, backbone_width=width, dilation=dilation)
    backbone = backbone_of(config)

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
            layers.append((kernel * output.numel(), (output.shape[2], output.shape[3])))
        elif isinstance(module, nn.Linear):
            layers.append((module.in_features * output.numel(), None))
        elif isinstance(module, nn.LayerNorm):
            layers.append((NORM * output.numel(), None))
        elif products := backbone.products(module, output):
            layers.append((products, None))

    with torch.device("meta"):
        network = backbone.build(config)
        for module in network.modules():
            module.register_forward_hook(count)
        maps = network(torch.empty(1, 3, *size))
    return layers, [(m.shape[1], (m.shape[2], m.shape[3])) for m in maps]
