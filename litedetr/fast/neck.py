"""The neck for inference: fused projections whose channels-last maps are tokens already, and a layout kept per size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litedetr.fast.convolution import plain
from litedetr.pyramid import FeaturePyramid, Layouts, PyramidNeck, level_mask

LAYOUTS = 4
"""Sizes of unpadded batches whose positions, masks and reference points are kept."""


def fast_neck(neck: PyramidNeck, dtype: torch.dtype) -> nn.Module:
    """A neck for inference alone, sharing nothing with the given one.

    It takes features of any dtype and order and returns a `FeaturePyramid` in float32. Of batches without padding, everything but
    the tokens depends on the size alone; it is made once, and pyramids of one size share it: change nothing in place.

    Args:
        dtype: float32 or bfloat16, of the convolutions' weights and outputs.
    """
    return FastNeck(neck, dtype)


class FastNeck(nn.Module):
    """`PyramidNeck` for inference."""

    def __init__(self, neck: PyramidNeck, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.projections = nn.ModuleList(plain(convolution, dtype) for convolution, _ in neck.projections)
        self.norms = nn.ModuleList(_frozen(norm) for _, norm in neck.projections)
        self.level_embed = nn.Buffer(neck.level_embed.detach().clone(), persistent=False)
        self.layouts = Layouts(self.level_embed, neck.temperature, neck.shift, kept=LAYOUTS)

    @torch.no_grad()
    def forward(self, features: Sequence[Tensor], mask: Tensor | None = None) -> FeaturePyramid:
        """Backbone features (B, C_l, H_l, W_l), finest first, and the image's padding mask -> `FeaturePyramid`."""
        features = [f.to(self.dtype).contiguous(memory_format=torch.channels_last) for f in features[-len(self.projections) :]]
        maps = []
        for index, (project, norm) in enumerate(zip(self.projections, self.norms, strict=True)):
            source = features[index] if index < len(features) else features[-1] if index == len(features) else maps[-1]
            maps.append(norm(project(source)))
        shapes = tuple((level.shape[2], level.shape[3]) for level in maps)
        masks = None if mask is None else [level_mask(mask, shape, len(mask), mask.device) for shape in shapes]
        layout = self.layouts(shapes, len(maps[0]), masks)
        tokens = torch.empty_like(layout.positions)
        for part, level in zip(tokens.split([H * W for H, W in layout.shapes], dim=1), maps, strict=True):
            part.copy_(level.flatten(2).transpose(1, 2))
        return layout.with_tokens(tokens)


def _frozen(norm: nn.GroupNorm) -> nn.GroupNorm:
    """A copy whose weights are constants, in float32 whatever the input's dtype."""
    copy = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps, device=norm.weight.device, dtype=torch.float32)
    copy.load_state_dict(norm.state_dict())
    return copy.requires_grad_(False)
