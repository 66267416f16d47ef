"""Deformable attention (Deformable DETR, section 4.1) and key-aware deformable attention (Lite DETR, section 3.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litedetr import ops
from litedetr.positions import Shapes, level_sides


@dataclass(frozen=True)
class Sampling:
    """What one attention call looked at.

    Attributes:
        locations: (B, Q, M, L, P, 2) x and y in [0, 1] of the padded image; may lie outside.
        weights: (B, Q, M, L, P), they sum to 1 over L and P; None where KDA was not asked for them.
        value: (B, S, M, D) the projected values, 0 at padding.
        query: (B, Q, M, D) the projected queries, and
        key: (B, S, M, D) what they were compared with (the values themselves unless `proj_key`): None without KDA.
    """

    locations: Tensor
    weights: Tensor | None
    value: Tensor
    query: Tensor | None = None
    key: Tensor | None = None


class DeformableAttention(nn.Module):
    """Every query samples P points on each of L levels per head; their weights are guessed from the query alone.

    Args:
        width: d; heads: M; levels: L; points: P.
        same_loc: predict one offset per head and point and use it on every level.
    """

    def __init__(self, width: int = 256, heads: int = 8, levels: int = 4, points: int = 4, same_loc: bool = False):
        super().__init__()
        if width % heads:
            raise ValueError(f"expected a width divisible by the number of heads, got width={width}, heads={heads}")
        self.width, self.heads, self.levels, self.points, self.same_loc = width, heads, levels, points, same_loc
        self.sampling_offsets = nn.Linear(width, heads * (1 if same_loc else levels) * points * 2)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self._add_weighting(width, heads * levels * points)
        self.reset_parameters()

    def _add_weighting(self, width: int, weights: int) -> None:
        self.attention_weights = nn.Linear(width, weights)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def reset_parameters(self) -> None:
        """Offsets start as a ring: head m looks in direction 2 pi m / M, point p at distance p + 1; projections by Xavier."""
        M, P = self.heads, self.points
        angle = torch.arange(M, dtype=torch.float32) * (2 * math.pi / M)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)  # (M, 2) on the unit square's border
        distance = torch.arange(1, P + 1, dtype=torch.float32)
        ring = direction[:, None, None] * distance[:, None]  # (M, 1, P, 2)
        ring = ring.expand(M, 1 if self.same_loc else self.levels, P, 2)
        with torch.no_grad():
            nn.init.zeros_(self.sampling_offsets.weight)
            self.sampling_offsets.bias.copy_(ring.flatten())
        for name, layer in self.named_children():
            if name in ("value_proj", "output_proj", "query_proj", "key_proj"):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def locations(self, query: Tensor, reference_points: Tensor, spatial_shapes: Shapes) -> Tensor:
        """Where each query samples.

        Args:
            query: (B, Q, d), positions included.
            reference_points: (B, Q, L, 2) as x, y or (B, Q, L, 4) as cx, cy, w, h, relative to the padded image.
            spatial_shapes: (height, width) per level, finest first.

        Returns:
            (B, Q, M, L, P, 2)
        """
        B, Q, _ = query.shape
        M, L, P = self.heads, self.levels, self.points
        centres = reference_points[..., :2]  # (B, Q, L, 2)
        if reference_points.shape[-1] == 2:
            unit = 1 / level_sides(spatial_shapes, centres)  # offsets count in pixels of each level
        elif reference_points.shape[-1] == 4:
            unit = reference_points[..., 2:] * (0.5 / P)  # offsets count in halves of the box
        else:
            raise ValueError(
                f"expected reference points with 2 (x, y) or 4 (cx, cy, w, h) coordinates, got {reference_points.shape[-1]} "
                f"in the shape {tuple(reference_points.shape)}"
            )
        offsets = self.sampling_offsets(query).to(centres.dtype).view(B, Q, M, -1, P, 2)
        offsets = offsets.expand(B, Q, M, L, P, 2).flatten(-3)  # (B, Q, M, L*P*2); same_loc repeats one level's
        centres, unit = (per_point(x, P) for x in (centres, unit))  # flat rows, as long as the vector units like them
        return torch.addcmul(centres[:, :, None], offsets, unit[..., None, :]).view(B, Q, M, L, P, 2)

    def project(self, projection: nn.Linear, memory: Tensor, padding_mask: Tensor | None) -> Tensor:
        """(B, S, d) memory -> (B, S, M, D) values or keys, 0 at padding."""
        B, S, d = memory.shape
        value = projection(memory)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        return value.view(B, S, self.heads, d // self.heads)

    def attend(
        self,
        query: Tensor,
        locations: Tensor,
        memory: Tensor,
        spatial_shapes: Shapes,
        padding_mask: Tensor | None,
        return_weights: bool,
    ) -> tuple[Tensor, Sampling]:
        """The attention core -> heads concatenated (B, Q, d), and what it looked at, weights included if asked for."""
        B, Q, _ = query.shape
        value = self.project(self.value_proj, memory, padding_mask)
        logits = self.attention_weights(query).view(B, Q, self.heads, self.levels * self.points)
        weights = logits.softmax(-1).view(B, Q, self.heads, self.levels, self.points)
        core = ops.deformable_attention(value, spatial_shapes, locations, weights)
        return core, Sampling(locations, weights, value)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: Shapes,
        padding_mask: Tensor | None = None,
        return_sampling: bool = False,
    ) -> Tensor | tuple[Tensor, Sampling]:
        """Attend from queries to the tokens of all levels.

        Args:
            query: (B, Q, d), positions already added.
            reference_points: (B, Q, L, 2 or 4), already times the valid ratios.
            memory: (B, S, d) tokens of all levels, finest first, without positions.
            spatial_shapes: (height, width) per level.
            padding_mask: (B, S) bool, True = padding.
            return_sampling: also return where it looked and how much.

        Returns:
            (B, Q, d), and a `Sampling` if asked for.
        """
        locations = self.locations(query, reference_points, spatial_shapes)
        core, sampling = self.attend(query, locations, memory, spatial_shapes, padding_mask, return_sampling)
        output = self.output_proj(core)
        return (output, sampling) if return_sampling else output


class KeyAwareDeformableAttention(DeformableAttention):
    """KDA: samples keys at the predicted locations and weighs them by softmax(q . k / sqrt(D)).

    Points outside the image or in padding have logit 0 and value 0 and keep their share of the softmax. The key is the
    projected value unless `proj_key` gives keys a projection of their own. docs/building-blocks.md uses it without a detector.
    """

    def __init__(self, *args, proj_key: bool = False, **kwargs):
        self.proj_key = proj_key
        super().__init__(*args, **kwargs)

    def _add_weighting(self, width: int, weights: int) -> None:
        self.query_proj = nn.Linear(width, width)
        if self.proj_key:
            self.key_proj = nn.Linear(width, width)

    def attend(
        self,
        query: Tensor,
        locations: Tensor,
        memory: Tensor,
        spatial_shapes: Shapes,
        padding_mask: Tensor | None,
        return_weights: bool,
    ) -> tuple[Tensor, Sampling]:
        B, Q, d = query.shape
        value = self.project(self.value_proj, memory, padding_mask)
        key = self.project(self.key_proj, memory, padding_mask) if self.proj_key else value
        query = self.query_proj(query).view(B, Q, self.heads, d // self.heads)
        attended = ops.key_aware_deformable_attention(query, key, value, spatial_shapes, locations, return_weights=return_weights)
        core, weights = attended if return_weights else (attended, None)
        return core, Sampling(locations, weights, value, query, key)


def per_point(x: Tensor, points: int) -> Tensor:
    """(..., L, 2) -> (..., L * P * 2), every level's pair repeated for its points."""
    return x[..., None, :].expand(*x.shape[:-1], points, 2).flatten(-3)
