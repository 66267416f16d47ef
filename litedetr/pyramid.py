"""FeaturePyramid: the tokens of all scales, and the neck that makes them from backbone features."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.positions import Shapes, reference_points, sine_positions, valid_ratios


@dataclass(frozen=True)
class FeaturePyramid:
    """Tokens of L scales, finest first, rows after rows.

    Attributes:
        tokens: (B, S, d) features.
        positions: (B, S, d) sine position plus level embedding.
        shapes: (height, width) of every level.
        mask: (B, S) bool, True = padding.
        valid_ratios: (B, L, 2) share of each level that is not padding, as (w, h).
        reference_points: (B, S, L, 2) every token's centre on every level, x and y in [0, 1] of the padded image.
        padded: False where it is known, without a look at the mask, that nothing is padding.
    """

    tokens: Tensor
    positions: Tensor
    shapes: tuple[tuple[int, int], ...]
    mask: Tensor
    valid_ratios: Tensor
    reference_points: Tensor
    padded: bool = True

    @property
    def padding(self) -> Tensor | None:
        """The mask if anything is padding, else None, so that unpadded photos skip the masking."""
        return self.mask if self.padded and bool(self.mask.any()) else None

    def first_token(self, level: int) -> int:
        """Index of the first token of a level."""
        return sum(H * W for H, W in self.shapes[:level])

    def with_tokens(self, tokens: Tensor) -> FeaturePyramid:
        """The same layout with other features."""
        return replace(self, tokens=tokens)

    @classmethod
    def from_maps(
        cls,
        maps: Sequence[Tensor],
        level_embed: Tensor,
        mask: Tensor | None = None,
        temperature: float = 20.0,
        shift: float = 0.0,
    ) -> FeaturePyramid:
        """Flatten maps into tokens with their positions.

        Args:
            maps: (B, d, H, W) per level, finest first.
            level_embed: (L, d), added to the sine positions.
            mask: (B, height, width) of the padded images, bool, True = padding.
            temperature, shift: of the sine positions, see `sine_positions`.
        """
        masks = [level_mask(mask, level.shape[2:], level.shape[0], level.device) for level in maps]
        layout = cls.layout(masks, level_embed, temperature, shift, padded=mask is not None)
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        return replace(layout, tokens=tokens, padded=mask is not None)

    @classmethod
    def layout(
        cls, masks: Sequence[Tensor], level_embed: Tensor, temperature: float = 20.0, shift: float = 0.0, padded: bool = True
    ) -> FeaturePyramid:
        """A pyramid in which everything is right but the tokens, of which there are none.

        Args:
            masks: (B, h, w) per level, finest first, bool, True = padding.
            level_embed, temperature, shift: as in `from_maps`; padded: False where nothing is padding.
        """
        shapes = tuple((mask.shape[1], mask.shape[2]) for mask in masks)
        dtype, features = level_embed.dtype, level_embed.shape[1] // 2
        positions = [
            sine_positions(mask, features, temperature, shift, dtype, padded).flatten(2).transpose(1, 2) + embed
            for mask, embed in zip(masks, level_embed, strict=True)
        ]
        ratios = torch.stack([valid_ratios(mask, dtype) for mask in masks], dim=1)  # (B, L, 2)
        return cls(
            tokens=level_embed.new_empty(0),
            positions=torch.cat(positions, dim=1),
            shapes=shapes,
            mask=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            valid_ratios=ratios,
            reference_points=reference_points(shapes, ratios),
        )


class Layouts:
    """Makes pyramids without tokens. Without padding they depend on the size alone: the last few of those are kept and shared, so
    change nothing in place.

    Args:
        level_embed, temperature, shift: as in `FeaturePyramid.from_maps`.
        kept: so many are kept.
    """

    def __init__(self, level_embed: Tensor, temperature: float = 20.0, shift: float = 0.0, kept: int = 0):
        self.level_embed, self.temperature, self.shift, self.kept = level_embed, temperature, shift, kept
        self._known: OrderedDict[tuple, FeaturePyramid] = OrderedDict()

    def __call__(self, shapes: Shapes, batch: int = 1, masks: Sequence[Tensor] | None = None) -> FeaturePyramid:
        """(height, width) per level, finest first, and the padding masks (B, h, w) of the levels where anything is padding."""
        if masks is not None:
            return self._layout(masks, padded=True)
        key = batch, tuple(shapes)
        layout = self._known.get(key)
        if layout is None:
            layout = self._layout([level_mask(None, shape, batch, self.level_embed.device) for shape in shapes], padded=False)
            self._known[key] = layout
            while len(self._known) > self.kept:
                self._known.popitem(last=False)
        return layout

    def _layout(self, masks: Sequence[Tensor], padded: bool) -> FeaturePyramid:
        return FeaturePyramid.layout(masks, self.level_embed, self.temperature, self.shift, padded)


def level_mask(mask: Tensor | None, shape: tuple[int, int], batch: int, device: torch.device) -> Tensor:
    """The image's padding mask at a level's size by nearest neighbour: (B, h, w) bool; all valid where there is none."""
    if mask is None:
        return torch.zeros(batch, *shape, dtype=torch.bool, device=device)
    return F.interpolate(mask[None].float(), size=shape)[0].bool()


class PyramidNeck(nn.Module):
    """Backbone stages to L scales of equal width: 1x1 convolutions, then 3x3 stride-2 ones for the coarser extra scales; of fewer
    scales than stages the coarsest."""

    def __init__(self, channels: Sequence[int], width: int, levels: int, temperature: float = 20.0, shift: float = 0.0):
        super().__init__()
        self.temperature, self.shift = temperature, shift
        channels = channels[-levels:]
        strided = [channels[-1]] + [width] * (levels - len(channels) - 1)
        self.projections = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(32, width)) for c in channels]
            + [
                nn.Sequential(nn.Conv2d(c, width, 3, stride=2, padding=1), nn.GroupNorm(32, width))
                for c in strided[: levels - len(channels)]
            ]
        )
        self.level_embed = nn.Parameter(torch.empty(levels, width).normal_())
        for projection in self.projections:
            nn.init.xavier_uniform_(projection[0].weight)
            nn.init.zeros_(projection[0].bias)

    @property
    def layouts(self) -> Layouts:
        """Makes the layout of its pyramids again, with the present weights."""
        return Layouts(self.level_embed.detach(), self.temperature, self.shift)

    def forward(self, features: Sequence[Tensor], mask: Tensor | None = None) -> FeaturePyramid:
        """Backbone features (B, C_l, H_l, W_l), finest first, and the image's padding mask -> `FeaturePyramid`."""
        features = features[-len(self.projections) :]
        maps = [project(feature) for project, feature in zip(self.projections, features, strict=False)]
        for index in range(len(features), len(self.projections)):
            source = features[-1] if index == len(features) else maps[-1]
            maps.append(self.projections[index](source))
        return FeaturePyramid.from_maps(maps, self.level_embed, mask, self.temperature, self.shift)
