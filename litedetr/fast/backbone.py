"""The backbones that have a form for inference: channels last, one fused operator per convolution."""

from __future__ import annotations

import copy

import torch
from torch import nn

from litedetr.backbones.mobilenet import MobileNetV2
from litedetr.backbones.nanodet import NanoDetG
from litedetr.backbones.resnet import ResNet50
from litedetr.backbones.swin import SwinTransformer
from litedetr.fast.mobilenet import FastMobileNet
from litedetr.fast.nanodet import FastNanoDet
from litedetr.fast.resnet import FastResNet
from litedetr.fast.swin import FastSwin

FAST = {ResNet50: FastResNet, SwinTransformer: FastSwin, MobileNetV2: FastMobileNet, NanoDetG: FastNanoDet}
"""The form for inference of a kind of backbone, made from (backbone, dtype); a kind may do without."""


def fast_backbone(backbone: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A backbone for inference alone, sharing nothing with the given one.

    It takes float32 pixels (B, 3, H, W) and returns maps of stride 8, 16 and 32, finest first, channels last and in `dtype`.

    Args:
        backbone: one of `litedetr.backbones`; a kind without a fast form stays as it is, and so does a ResNet with dilation.
        dtype: float32 or bfloat16, of weights and of what flows between the layers.
    """
    if type(backbone) not in FAST or (isinstance(backbone, ResNet50) and backbone.dilation):
        return copy.deepcopy(backbone)
    return FAST[type(backbone)](backbone, dtype)
