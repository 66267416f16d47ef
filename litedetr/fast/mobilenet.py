"""`MobileNetV2` for inference: one fused operator per convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litedetr.backbones.mobilenet import TAPS, InvertedResidual, MobileNetV2
from litedetr.fast.convolution import SameConvolution, channels_last, plain
from litedetr.fast.strips import Chain


class FastMobileNet(nn.Module):
    """`MobileNetV2` for inference. Blocks with a skip overwrite their input; that of a tapped map never has one."""

    def __init__(self, mobilenet: MobileNetV2, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.channels = dtype, mobilenet.channels
        stem, first, *others = mobilenet.features
        blocks = [Chain(SameConvolution(stem, dtype), *inverted_residual(first, dtype))]
        blocks += [Chain(*inverted_residual(block, dtype), skip=block.skip) for block in others]
        self.blocks = nn.ModuleList(blocks)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = channels_last(pixels, self.dtype)
        maps = []
        for index, block in enumerate(self.blocks, start=1):
            x = block(x)
            if index in TAPS:
                maps.append(x)
        return maps


def inverted_residual(block: InvertedResidual, dtype: torch.dtype) -> list[nn.Module]:
    """Its convolutions, in order."""
    expand = [] if block.expand is None else [plain(block.expand, dtype, "relu6")]
    return [*expand, SameConvolution(block.dw, dtype), plain(block.project, dtype)]
