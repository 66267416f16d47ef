"""Backbones for inference: batch norm folded, channels last, one fused operator per convolution."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from litedetr.backbones import MobileNetV2, ResNet50, SwinTransformer
from litedetr.backbones.mobilenet import TAPS, InvertedResidual
from litedetr.backbones.resnet import Bottleneck, FrozenBatchNorm
from litedetr.fast.convolution import Activation, FusedConvolution, SameConvolution, channels_last, plain
from litedetr.fast.neck import fast_neck
from litedetr.fast.strips import Chain, MaxPool
from litedetr.fast.swin import FastSwin

__all__ = ["fast_backbone", "fast_neck"]


def fast_backbone(backbone: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A backbone for inference alone, sharing nothing with the given one.

    It takes float32 pixels (B, 3, H, W) and returns maps of stride 8, 16 and 32, finest first, channels last and in `dtype`.

    Args:
        backbone: one of `litedetr.backbones`; another kind stays as it is, and so does a ResNet with dilation.
        dtype: float32 or bfloat16, of weights and of what flows between the layers.
    """
    if isinstance(backbone, ResNet50) and not backbone.dilation:
        return FastResNet(backbone, dtype)
    if isinstance(backbone, MobileNetV2):
        return FastMobileNet(backbone, dtype)
    if isinstance(backbone, SwinTransformer):
        return FastSwin(backbone, dtype)
    return copy.deepcopy(backbone)


class FastResNet(nn.Module):
    """`ResNet50` for inference."""

    def __init__(self, resnet: ResNet50, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.channels = dtype, resnet.channels
        stem = folded(resnet.conv1, resnet.bn1, dtype, "relu")
        self.stem = Chain(stem, MaxPool(stem.channels))
        stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self.stages = nn.ModuleList(nn.Sequential(*(FastBottleneck(block, dtype) for block in stage)) for stage in stages)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Tensor]:
        stage1, stage2, stage3, stage4 = self.stages
        maps = [stage2(stage1(self.stem(channels_last(pixels, self.dtype))))]
        for stage in (stage3, stage4):
            maps.append(stage(maps[-1]))
        return maps


class FastBottleneck(nn.Module):
    """`Bottleneck` for inference. Without a projection of its skip it overwrites its input, which nobody else reads."""

    def __init__(self, block: Bottleneck, dtype: torch.dtype):
        super().__init__()
        self.conv1 = folded(block.conv1, block.bn1, dtype, "relu")
        self.conv2 = folded(block.conv2, block.bn2, dtype, "relu")
        self.conv3 = folded(block.conv3, block.bn3, dtype, "relu")
        self.downsample = None if block.downsample is None else folded(*block.downsample, dtype)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return self.conv3.add(out, x if self.downsample is None else self.downsample(x))


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


def folded(
    convolution: nn.Conv2d, norm: FrozenBatchNorm, dtype: torch.dtype, activation: Activation = "none"
) -> FusedConvolution:
    """A convolution that does what `convolution` and `norm` do one after the other."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight, bias = convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
    return FusedConvolution(weight, bias, dtype, convolution.stride[0], convolution.padding[0], activation=activation)
