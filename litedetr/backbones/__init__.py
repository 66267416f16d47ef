"""Backbones: pixels (B, 3, H, W) -> feature maps of stride 8, 16 and 32, finest first. `litedetr.config.BACKBONES` lists them."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from litedetr.backbones.backbone import Backbone
from litedetr.config import BACKBONES, DetectorConfig

__all__ = ["Backbone", "backbone_of", "build_backbone"]


def backbone_of(config: DetectorConfig) -> Backbone:
    """What there is to know about the backbone that a config names."""
    return import_module(f"{__name__}.{BACKBONES[config.backbone]}").BACKBONE


def build_backbone(config: DetectorConfig) -> nn.Module:
    """The backbone that a config names, with random weights; see `Backbone.build`."""
    return backbone_of(config).build(config)
