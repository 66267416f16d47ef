"""`NanoDetG` for inference: one fused operator per convolution and its LeakyReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litedetr.backbones.nanodet import CSPBlock, CSPStage, NanoDetG, aggregate
from litedetr.fast.convolution import FusedConvolution, channels_last, plain
from litedetr.fast.strips import Chain, MaxPool


class FastNanoDet(nn.Module):
    """`NanoDetG` for inference."""

    def __init__(self, nanodet: NanoDetG, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.channels = dtype, nanodet.channels
        stem = leaky(nanodet.stem, dtype)
        self.stem = Chain(stem, MaxPool(stem.channels))
        self.stages = nn.ModuleList(FastStage(stage, dtype) for stage in nanodet.stages)
        self.laterals = nn.ModuleList(plain(lateral, dtype) for lateral in nanodet.laterals)
        self.convs = nn.ModuleList(leaky(conv, dtype) for conv in nanodet.convs)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = self.stages[0](self.stem(channels_last(pixels, self.dtype)))
        maps = []
        for stage, lateral in zip(self.stages[1:], self.laterals, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        return [conv(level) for conv, level in zip(self.convs, aggregate(maps), strict=True)]


class FastBlock(nn.Module):
    """`CSPBlock` for inference."""

    def __init__(self, block: CSPBlock, dtype: torch.dtype):
        super().__init__()
        self.in_conv, self.mid_conv = leaky(block.in_conv, dtype), leaky(block.mid_conv, dtype)

    def forward(self, x: Tensor) -> Tensor:
        half = self.in_conv(x)
        return torch.cat((self.mid_conv(half), half), dim=1)


class FastStage(nn.Module):
    """`CSPStage` for inference."""

    def __init__(self, stage: CSPStage, dtype: torch.dtype):
        super().__init__()
        self.in_conv, self.out_conv = leaky(stage.in_conv, dtype), leaky(stage.out_conv, dtype)
        self.blocks = nn.Sequential(*(FastBlock(block, dtype) for block in stage.blocks))

    def forward(self, x: Tensor) -> Tensor:
        short = self.in_conv(x)
        return torch.cat((self.out_conv(self.blocks(short)), short), dim=1)


def leaky(convolution: nn.Conv2d, dtype: torch.dtype) -> FusedConvolution:
    """A convolution and LeakyReLU in one operator."""
    return plain(convolution, dtype, "leaky")
