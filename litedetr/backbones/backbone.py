"""What there is to know about a backbone; each file here says it of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from litedetr.config import DetectorConfig


def _none(module: nn.Module, output: Tensor) -> int:
    return 0


@dataclass(frozen=True)
class Backbone:
    """A kind of backbone.

    Attributes:
        title: how it is called.
        build: config -> a module with random weights: normalised pixels (B, 3, H, W) -> maps of stride 8, 16 and 32, finest
            first. It has ``channels``, one entry per map, and ``freeze_stem()``.
        width: ``config.backbone_width`` in full size.
        load: reads a file of trained weights into the module; None: weights of an ImageNet classifier, as libraries save them
            (`litedetr.training.imagenet`).
        products: multiply-adds of one of its modules, given its output, beside convolutions, linear layers and norms.
    """

    title: str
    build: Callable[[DetectorConfig], nn.Module]
    width: int = 64
    load: Callable[[nn.Module, str | Path], None] | None = None
    products: Callable[[nn.Module, Tensor], int] = _none
