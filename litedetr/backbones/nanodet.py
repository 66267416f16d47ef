"""NanoDet-g's feature extractor (RangiLyu's NanoDet): a CSP network, a path-aggregation network and one convolution a scale.

Batch norm is folded into the convolutions. Every 3x3 convolution is followed by LeakyReLU 0.1.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.backbones.backbone import Backbone
from litedetr.meta import OnMeta

SLOPE = 0.1
"""Of LeakyReLU below zero."""
WIDTH = 128
"""Channels of the three maps."""
_STAGES = ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 2, 3))
"""(inputs, stride, blocks) of the stages at strides 4, 8, 16, 32; a stage has twice as many outputs as inputs."""


class LeakyConvolution(nn.Conv2d):
    """3x3 convolution and LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), SLOPE, inplace=True)


class CSPBlock(nn.Module):
    """Half of the channels as they come from the first convolution, half after a second one: (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.in_conv = LeakyConvolution(channels, channels // 2)
        self.mid_conv = LeakyConvolution(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        half = self.in_conv(x)
        return torch.cat((self.mid_conv(half), half), dim=1)


class CSPStage(nn.Module):
    """A convolution, blocks, a convolution, beside what the first one gave (Wang et al. 2019): C -> 2 C channels."""

    def __init__(self, channels: int, stride: int, blocks: int):
        super().__init__()
        self.in_conv = LeakyConvolution(channels, channels, stride)
        self.blocks = nn.Sequential(*(CSPBlock(channels) for _ in range(blocks)))
        self.out_conv = LeakyConvolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        short = self.in_conv(x)
        return torch.cat((self.out_conv(self.blocks(short)), short), dim=1)


class NanoDetG(nn.Module):
    """NanoDet-g up to what its last 1x1 convolutions read. Input is RGB, normalised by ImageNet's mean and deviation."""

    channels = (WIDTH,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.stem = LeakyConvolution(3, 32, 2)
        self.stages = nn.ModuleList(CSPStage(*stage) for stage in _STAGES)
        self.laterals = nn.ModuleList(nn.Conv2d(2 * inputs, WIDTH, 1) for inputs, _, _ in _STAGES[1:])
        self.convs = nn.ModuleList(LeakyConvolution(WIDTH, WIDTH) for _ in _STAGES[1:])

    def freeze_stem(self) -> None:
        """Take what runs at strides 2 and 4 out of training."""
        for module in (self.stem, self.stages[0]):
            module.requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, 128, h, w) of stride 8, 16, 32, finest first."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        x = self.stages[0](F.max_pool2d(x, 3, stride=2, padding=1))
        maps = []
        for stage, lateral in zip(self.stages[1:], self.laterals, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        return [conv(level) for conv, level in zip(self.convs, aggregate(maps), strict=True)]


def aggregate(maps: list[Tensor]) -> list[Tensor]:
    """PAN without convolutions of its own (Liu et al. 2018): every map gets its coarser neighbour, then its finer one.

    (B, C, h, w) per scale, finest first -> the same; the given ones are overwritten.
    """
    for coarse, fine in pairwise(reversed(maps)):
        fine += resized(coarse, fine)
    for fine, coarse in pairwise(maps):
        coarse += resized(fine, coarse)
    return maps


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to another map's height and width."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def read_nanodet(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The published detector's weights (batch norm folded) in two parts: those of `NanoDetG`, and those of its three last 1x1
    convolutions (``0.weight``, ``0.bias``, …), which only the teacher needs. The stem's input is turned from BGR to RGB.

    Raises:
        ValueError: a key is missing or unexpected, or has another shape.
    """
    state, head = {}, {}
    for key, value in load_file(path).items():
        if key.startswith("head.outputs."):
            head[key.removeprefix("head.outputs.")] = value.float()
        else:
            state[_renamed(key)] = value.float()
    with OnMeta():
        expected = NanoDetG().state_dict()
    _check(state, {key: tuple(value.shape) for key, value in expected.items()}, path)
    _check(head, _head_shapes(), path)
    state["stem.weight"] = state["stem.weight"].flip(1)
    return state, head


def load_nanodet_backbone(backbone: NanoDetG, path: str | Path) -> None:
    """Start from COCO weights, see `read_nanodet`; nothing is loaded if they do not fit."""
    backbone.load_state_dict(read_nanodet(path)[0])


BINS = 11
"""Of each of the four distances that the published head predicts (generalised focal loss, Li et al. 2020)."""
CLASSES = 80


def _head_shapes() -> dict[str, tuple[int, ...]]:
    outputs = CLASSES + 4 * BINS
    shapes = {"weight": (outputs, WIDTH, 1, 1), "bias": (outputs,)}
    return {f"{level}.{name}": shape for level in range(3) for name, shape in shapes.items()}


def _renamed(key: str) -> str:
    """The published key -> ours."""
    for old, new in (("backbone.stem.conv.", "stem."), ("backbone.", ""), ("pan.", ""), ("head.", "")):
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _check(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]], path: str | Path) -> None:
    wrong = sorted(
        key for key in expected.keys() | state.keys() if key not in state or expected.get(key) != tuple(state[key].shape)
    )
    if wrong:
        raise ValueError(
            f"expected NanoDet-g's weights with batch norm folded, got {len(wrong)} missing, unexpected or misshaped keys "
            f"({', '.join(wrong[:3])}, …) in {Path(path).name}: give the file of the detector trained on COCO"
        )


BACKBONE = Backbone("NanoDet-g", build=lambda config: NanoDetG(), load=load_nanodet_backbone)
