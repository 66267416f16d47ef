"""ResNet-50 with frozen batch norm, as DETR uses it (He et al. 2016; stride in the 3x3 convolution)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.backbones.backbone import Backbone


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine parameters are constants."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + bias[:, None, None]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a skip."""

    def __init__(self, channels: int, width: int, stride: int, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = FrozenBatchNorm(4 * width)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            convolution = nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(convolution, FrozenBatchNorm(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn3(self.conv3(out)) + skip)


class ResNet50(nn.Module):
    """Stages of 3, 4, 6 and 3 bottlenecks; the last three are returned.

    Args:
        width: channels of the stem (64 in full size).
        dilation: the last stage keeps the stride of the one before it, and looks as far (DC5).
    """

    def __init__(self, width: int = 64, dilation: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        channels = width
        for stage, depth in enumerate((3, 4, 6, 3)):
            stage_width = width * 2**stage
            dilated, blocks = dilation and stage == 3, []
            for index in range(depth):
                stride = 2 if stage and index == 0 and not dilated else 1
                blocks.append(Bottleneck(channels, stage_width, stride, 2 if dilated and index else 1))
                channels = 4 * stage_width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.dilation, self.channels = dilation, (8 * width, 16 * width, 32 * width)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(pixels))), 3, stride=2, padding=1)
        stage2 = self.layer2(self.layer1(x))
        stage3 = self.layer3(stage2)
        return [stage2, stage3, self.layer4(stage3)]

    def freeze_stem(self) -> None:
        """Take the stem and the first stage out of training, as DETR-style detectors do."""
        for module in (self.conv1, self.layer1):
            module.requires_grad_(False)


BACKBONE = Backbone("ResNet-50", build=lambda config: ResNet50(config.backbone_width, config.dilation))
