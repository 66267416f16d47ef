"""Layers that run one after the other on strips of rows, so that what lies between them stays in the cache."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.fast.convolution import source_rows

CACHE = 2 << 20
"""Bytes of one core's second-level cache, about: what lies between two layers is made in pieces of this size …"""
LARGE = 16 << 20
"""… if it has more bytes than this: the system also takes its time to hand out pieces of that size, and takes them back."""


class MaxPool(nn.Module):
    """3x3, stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, stride=2, padding=1)

    def size(self, height: int, width: int) -> tuple[int, int]:
        return (height + 1) // 2, (width + 1) // 2

    def source_rows(self, first: int, last: int, height: int) -> tuple[int, int]:
        return source_rows(first, last, height, kernel=3, stride=2, padding=1)

    def on_rows(self, x: Tensor, start: int, height: int) -> tuple[Tensor, int]:
        return self(x), start // 2


class Chain(nn.Module):
    """Layers one after the other: (B, C, H, W) -> (B, N, h, w), channels last.

    Args:
        layers: modules like `FusedConvolution`, with `channels`, `size`, `source_rows` and `on_rows`.
        skip: the input is added to the last layer's output, before its activation, and **overwritten by it**.
    """

    def __init__(self, *layers: nn.Module, skip: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.skip else None
        sizes = [tuple(x.shape[2:])]
        for layer in self.layers:
            sizes.append(layer.size(*sizes[-1]))
        between = [layer.channels * prod(size) for layer, size in zip(self.layers[:-1], sizes[1:], strict=False)]
        if max(between) * len(x) * x.element_size() <= LARGE:
            return self._whole(x, skip)
        return self._in_strips(x, skip, sizes, ceil(max(between) * x.element_size() / CACHE))

    def _whole(self, x: Tensor, skip: Tensor | None) -> Tensor:
        *layers, last = self.layers
        for layer in layers:
            x = layer(x)
        return last(x) if skip is None else last.add(x, skip)

    def _in_strips(self, x: Tensor, skip: Tensor | None, sizes: list[tuple[int, int]], strips: int) -> Tensor:
        *layers, final = self.layers
        shape = (len(x), final.channels, *sizes[-1])
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        rows = max(4, ceil(shape[2] / strips))
        for photo in range(len(x)):
            for first in range(0, shape[2], rows):
                last = min(first + rows, shape[2])
                wanted = [(first, last)]  # rows of every layer's output, from the last one back to the input
                for layer, (height, _) in zip(reversed(self.layers), reversed(sizes[:-1]), strict=True):
                    wanted.insert(0, layer.source_rows(*wanted[0], height))
                part = x[photo : photo + 1, :, slice(*wanted[0])]
                for layer, (height, _), ((start, _), (begin, end)) in zip(layers, sizes, pairwise(wanted), strict=False):
                    part, start = layer.on_rows(part, start, height)
                    part = part[:, :, begin - start : end - start]
                place = out[photo : photo + 1, :, first:last]
                if skip is not None:
                    final.add(part, place.copy_(skip[photo : photo + 1, :, first:last]))
                else:
                    part, start = final.on_rows(part, wanted[-2][0], sizes[-2][0])
                    place.copy_(part[:, :, first - start : last - start])
        return out
