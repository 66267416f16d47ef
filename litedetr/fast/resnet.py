"""`ResNet50` for inference: batch norm folded, one fused operator per convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litedetr.backbones.resnet import Bottleneck, FrozenBatchNorm, ResNet50
from litedetr.fast.convolution import Activation, FusedConvolution, channels_last
from litedetr.fast.strips import Chain, MaxPool


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


def folded(
    convolution: nn.Conv2d, norm: FrozenBatchNorm, dtype: torch.dtype, activation: Activation = "none"
) -> FusedConvolution:
    """A convolution that does what `convolution` and `norm` do one after the other."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight, bias = convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
    return FusedConvolution(weight, bias, dtype, convolution.stride[0], convolution.padding[0], activation=activation)
