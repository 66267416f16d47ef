"""Where tokens and boxes are, as numbers: sine embeddings, reference points, box proposals, inverse sigmoid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

NEAREST = 0.01 + 1e-6
"""To the picture's sides: tokens whose box's centre lies nearer propose none. 0.01 (Deformable DETR's code), and that itself is
too near: in 50 rows the first centre is there, which rounding, by padding or another program, puts on either side."""
Shapes = Sequence[tuple[int, int]]


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Logit of x clamped to [0, 1], with numerator and denominator at least `eps` (1e-3 in DINO, 1e-5 in Deformable DETR)."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def _interleaved_sine(angles: Tensor) -> Tensor:
    """(..., F) angles -> sine of the even ones, cosine of the odd ones, in place."""
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def _wavelengths(features: int, temperature: float, like: Tensor) -> Tensor:
    index = torch.arange(features, dtype=like.dtype, device=like.device)
    return temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / features)


def sine_positions(
    mask: Tensor,
    features: int,
    temperature: float | tuple[float, float] = 20.0,
    shift: float = 0.0,
    dtype=torch.float32,
    padded: bool = True,
) -> Tensor:
    """Sine embedding of every pixel's place among the valid ones (DETR, appendix A.4).

    Args:
        mask: (B, H, W) bool, True = padding.
        features: per axis; the y features come first.
        temperature: one for both axes, or (for y, for x).
        shift: added to the 1-based position before it is normalised (-0.5 in Deformable DETR).
        padded: False where nothing is padding: all columns of a row are alike then, and all rows of a column.

    Returns:
        (B, 2 * features, H, W)
    """
    valid = (~mask).to(dtype)
    temperatures = temperature if isinstance(temperature, tuple) else (temperature, temperature)
    embeddings = []
    for axis, axis_temperature in zip((1, 2), temperatures, strict=True):
        position = valid.cumsum(axis)
        last = position.narrow(axis, position.shape[axis] - 1, 1)
        position = (position + shift) / (last + 1e-6) * 2 * math.pi
        if not padded:
            position = position.narrow(3 - axis, 0, 1)
        sine = _interleaved_sine(position[..., None] / _wavelengths(features, axis_temperature, position))
        embeddings.append(sine.expand(*mask.shape, features))
    return torch.cat(embeddings, dim=-1).permute(0, 3, 1, 2)


def box_sine(boxes: Tensor, features: int, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of points or boxes in [0, 1] (DAB-DETR): (..., 2 or 4) -> (..., (2 or 4) * features), order y, x, w, h."""
    return coordinate_sine(boxes[..., [1, 0, 2, 3][: boxes.shape[-1]]], features, temperature)


def coordinate_sine(boxes: Tensor, features: int, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of boxes in [0, 1] in the order x, y, w, h (Deformable DETR, two-stage): (..., 4) -> (..., 4 * features)."""
    return _interleaved_sine(boxes[..., None] * 2 * math.pi / _wavelengths(features, temperature, boxes)).flatten(-2)


def move_boxes(start: Tensor, delta: Tensor, eps: float = 1e-3) -> Tensor:
    """Iterative refinement (Deformable DETR, section 4.2): `delta` is added before the sigmoid.

    Args:
        start: (..., 4) boxes cxcywh or (..., 2) points, in [0, 1]; a point gets its size from `delta` alone.
        delta: (..., 4).

    Returns:
        (..., 4) boxes in [0, 1].
    """
    logits = inverse_sigmoid(start, eps)
    if start.shape[-1] == 2:
        logits = F.pad(logits, (0, 2))
    return (delta.to(logits.dtype) + logits).sigmoid()


def move_anchors(start: Tensor, delta: Tensor) -> Tensor:
    """Boxes from anchors, moved by parts of their sides and scaled (Faster R-CNN, Ren et al. 2015), so that the same `delta`
    moves an anchor by as many pixels wherever it lies, which a sum before the sigmoid does not.

    Args:
        start: (..., 4) cxcywh **before** the sigmoid, +inf where there is none: it stays.
        delta: (..., 4): shift of the centre in widths and heights, logarithms of the factors of the sides.

    Returns:
        (..., 4) before the sigmoid.
    """
    centre, side = start.sigmoid().split(2, dim=-1)
    shift, scale = delta.to(start.dtype).split(2, dim=-1)
    moved = torch.cat((centre + shift * side, side * scale.clamp(max=4).exp()), dim=-1)
    return torch.where(start.isinf(), start, inverse_sigmoid(moved))


def valid_ratios(mask: Tensor, dtype=torch.float32) -> Tensor:
    """Share of columns and rows that are not padding: (B, H, W) bool -> (B, 2) as (w, h)."""
    _, H, W = mask.shape
    rows = (~mask[:, :, 0]).sum(1).to(dtype) / H
    columns = (~mask[:, 0, :]).sum(1).to(dtype) / W
    return torch.stack((columns, rows), dim=-1)


def token_centres(shapes: Shapes, ratios: Tensor) -> Tensor:
    """Every token's own centre relative to the valid area: (B, L, 2) valid ratios -> (B, S, 2)."""
    centres = []
    for level, (H, W) in enumerate(shapes):
        y = torch.arange(0.5, H, dtype=ratios.dtype, device=ratios.device)[None] / (ratios[:, level, None, 1] * H)  # (B, H)
        x = torch.arange(0.5, W, dtype=ratios.dtype, device=ratios.device)[None] / (ratios[:, level, None, 0] * W)  # (B, W)
        grid = torch.stack((x[:, None, :].expand(-1, H, W), y[:, :, None].expand(-1, H, W)), dim=-1)
        centres.append(grid.flatten(1, 2))
    return torch.cat(centres, dim=1)


def reference_points(shapes: Shapes, ratios: Tensor) -> Tensor:
    """The encoder's reference points: each token's centre, placed on every level: (B, S, L, 2), x and y in the padded image."""
    return token_centres(shapes, ratios)[:, :, None] * ratios[:, None]


def level_sides(shapes: Shapes, like: Tensor) -> Tensor:
    """(L, 2) width and height of every level in pixels; sizes that are traced stay variables, which `new_tensor` would not do."""
    return torch.stack([like.new_full((), side) for H, W in shapes for side in (W, H)]).view(-1, 2)


def box_proposals(
    shapes: Shapes, mask: Tensor, base_size: Tensor | float = 0.05, usable_only: bool = True, cells: float | None = None
) -> tuple[Tensor, Tensor]:
    """One box per token, centred on it and twice as large on each coarser level (Deformable DETR, appendix A.4).

    Args:
        shapes: (height, width) per level, finest first.
        mask: (B, S) bool, True = padding.
        base_size: width and height on the finest level, a number or a tensor (2,).
        cells: instead of `base_size`, width and height in cells of each level: squares in the photo, whatever its shape. At most
            0.9 of the photo.
        usable_only: put +inf where a token is padding or its box leaves (0.01, 0.99).

    Returns:
        (B, S, 4) cxcywh **before** the sigmoid; (B, S) bool, True = usable.
    """
    B = mask.shape[0]
    dtype = base_size.dtype if isinstance(base_size, Tensor) else torch.float32
    size = torch.as_tensor(base_size, dtype=dtype, device=mask.device).expand(2)
    centres, sizes = [], []
    for level, (level_mask, (H, W)) in enumerate(zip(split_levels(mask, shapes), shapes, strict=True)):
        ratio = valid_ratios(level_mask, size.dtype)
        centres.append(token_centres([(H, W)], ratio[:, None]))
        side = size * 2.0**level if cells is None else (cells / (ratio * level_sides([(H, W)], ratio))).clamp(max=0.9)[:, None]
        sizes.append(side.expand(B, H * W, 2))
    proposals = torch.cat((torch.cat(centres, 1), torch.cat(sizes, 1)), dim=-1)
    usable = ((proposals > NEAREST) & (proposals < 1 - NEAREST)).all(-1) & ~mask
    proposals = torch.log(proposals / (1 - proposals)) if usable_only else inverse_sigmoid(proposals)
    if usable_only:
        proposals = proposals.masked_fill(~usable[..., None], float("inf"))
    return proposals, usable


def level_slices(shapes: Shapes) -> list[slice]:
    """Which of the S tokens each level has: they run from the finest level's on, row after row."""
    starts = accumulate((H * W for H, W in shapes), initial=0)
    return [slice(first, end) for first, end in pairwise(starts)]


def split_levels(tokens: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    """(B, S, ...) tokens of all levels -> one (B, H, W, ...) per level."""
    parts = tokens.split([H * W for H, W in shapes], dim=1)
    return tuple(part.view(part.shape[0], *shape, *part.shape[2:]) for part, shape in zip(parts, shapes, strict=True))
