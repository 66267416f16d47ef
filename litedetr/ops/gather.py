"""Both attention ops with bilinear sampling spelled out as gathers of rows, for exported graphs: some compilers of graphs get
`grid_sample` wrong, in silence (TensorRT), or have none (WebGPU)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from litedetr.ops import reference
from litedetr.positions import level_slices


def sample(maps: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor) -> Tensor:
    """As `litedetr.ops.reference.sample`: the four pixels around each place are gathered for all levels at once, and weighed."""
    B, Q, M, L, P, _ = locations.shape
    S, D = maps.shape[1], maps.shape[-1]
    widths, heights, starts = _layout(spatial_shapes, locations)
    rows = maps.reshape(B * S * M, D)
    own = torch.arange(B, device=maps.device).view(B, 1, 1, 1, 1) * S  # a picture's first token
    head = torch.arange(M, device=maps.device).view(M, 1, 1)
    x, y = locations[..., 0] * widths - 0.5, locations[..., 1] * heights - 0.5  # (B, Q, M, L, P), in pixels of each level
    left, top = x.floor(), y.floor()
    samples = []
    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < widths) & (row >= 0) & (row < heights)
            token = row.clamp(min=0).minimum(heights - 1) * widths + column.clamp(min=0).minimum(widths - 1) + starts
            place = (own + token.long()) * M + head
            weight = across * down * inside.to(maps.dtype)
            samples.append(rows[place.reshape(-1)].view(B, Q, M, L * P, D) * weight.reshape(B, Q, M, L * P, 1))
    return samples[0] + samples[1] + samples[2] + samples[3]


def _layout(spatial_shapes: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each level's width, height and first token, (L, 1) each; sizes that are traced stay variables."""
    starts = [tokens.start for tokens in level_slices(spatial_shapes)]
    columns = [width for _, width in spatial_shapes], [height for height, _ in spatial_shapes], starts
    return tuple(torch.stack([like.new_full((1,), value) for value in column]) for column in columns)


deformable_attention = partial(reference.deformable_attention, sampler=sample)
key_aware_deformable_attention = partial(reference.key_aware_deformable_attention, sampler=sample)
