"""Backbones: pixels (B, 3, H, W) -> feature maps of stride 8, 16 and 32, finest first."""

from __future__ import annotations

from torch import nn

from litedetr.backbones.mobilenet import MobileNetV2
from litedetr.backbones.resnet import ResNet50
from litedetr.backbones.swin import SwinTransformer
from litedetr.config import DetectorConfig

__all__ = ["MobileNetV2", "ResNet50", "SwinTransformer", "build_backbone"]


def build_backbone(config: DetectorConfig) -> nn.Module:
    """The backbone a config names; it has an attribute ``channels``, one entry per feature map."""
    if config.backbone == "resnet50":
        return ResNet50(config.backbone_width, config.dilation)
    if config.backbone == "swin_tiny":
        return SwinTransformer(config.backbone_width)
    if config.backbone == "mobilenetv2":
        return MobileNetV2()
    raise ValueError(f"expected the backbone resnet50, swin_tiny or mobilenetv2, got {config.backbone!r}")
