"""Both attention ops in plain PyTorch: slow, short, differentiable in every input. What the fast kernels are held to.

Everything is computed in float32 at least (float64 if any input is), and outputs are rounded to the value's dtype once,
at the end: the same rule as the fast kernels follow.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Sampler = Callable[[Tensor, Sequence[tuple[int, int]], Tensor], Tensor]
"""`sample`, or another function that gives the same."""


def deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    sampler: Sampler | None = None,
) -> Tensor:
    """Weighted sums of bilinear samples; see `litedetr.ops.deformable_attention`. `sampler`: `sample` if None."""
    sampler = sampler or sample
    B, Q, M, L, P, _ = locations.shape
    D = value.shape[-1]
    dtype = _working_dtype(value, locations, weights)
    samples = sampler(value.to(dtype), spatial_shapes, locations.to(dtype))  # (B, Q, M, L*P, D)
    out = (samples * weights.to(dtype).reshape(B, Q, M, L * P, 1)).sum(-2)  # (B, Q, M, D)
    return out.reshape(B, Q, M * D).to(value.dtype)


def key_aware_deformable_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    sampler: Sampler | None = None,
) -> tuple[Tensor, Tensor]:
    """Output and softmax weights; see `litedetr.ops.key_aware_deformable_attention`. `sampler`: `sample` if None."""
    sampler = sampler or sample
    B, Q, M, L, P, _ = locations.shape
    D = value.shape[-1]
    dtype = _working_dtype(query, key, value, locations)
    locations = locations.to(dtype)
    values = sampler(value.to(dtype), spatial_shapes, locations)  # (B, Q, M, L*P, D)
    keys = values if key is value else sampler(key.to(dtype), spatial_shapes, locations)
    logits = (query.to(dtype).unsqueeze(-2) * keys).sum(-1) * D**-0.5  # (B, Q, M, L*P)
    weights = logits.softmax(-1)
    out = (weights.unsqueeze(-1) * values).sum(-2)  # (B, Q, M, D)
    return out.reshape(B, Q, M * D).to(value.dtype), weights.reshape(B, Q, M, L, P)


def sample(maps: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor) -> Tensor:
    """Bilinear samples of a multi-scale map: pixel centres at (i + 0.5) / size, zeros outside.

    `maps` is (B, S, M, D), `locations` (B, Q, M, L, P, 2) in 0..1, both of one dtype; the result is (B, Q, M, L*P, D).
    """
    B, Q, M, L, P, _ = locations.shape
    D = maps.shape[-1]
    levels = maps.split([height * width for height, width in spatial_shapes], dim=1)
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B*M, Q, L, P, 2), -1..1
    samples = []
    for index, (level, (height, width)) in enumerate(zip(levels, spatial_shapes, strict=True)):
        image = level.permute(0, 2, 3, 1).reshape(B * M, D, height, width)
        points = F.grid_sample(image, grid[:, :, index], "bilinear", "zeros", align_corners=False)  # (B*M, D, Q, P)
        samples.append(points)
    stacked = torch.stack(samples, dim=-2)  # (B*M, D, Q, L, P)
    return stacked.reshape(B, M, D, Q, L * P).permute(0, 3, 1, 4, 2)


def _working_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
