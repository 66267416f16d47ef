"""Boxes as tensors: two notations and their overlaps.

Inside the detector a box is normalised ``cxcywh`` (centre, width, height); at its public edge it is ``xyxy`` in pixels.
Every function takes any leading shape, the last dimension holding the four numbers; overlaps broadcast, so the same
function gives pairs (``(N, 4), (N, 4) -> (N,)``) and tables (``(N, 1, 4), (1, M, 4) -> (N, M)``).
"""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre, width, height -> left, top, right, bottom."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom -> centre, width, height."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), dim=-1)


def iou_and_giou(first: Tensor, second: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Intersection over union, and generalised IoU (Rezatofighi et al., 2019), of ``xyxy`` boxes that broadcast.

    With ``eps`` 0 an empty box against an empty box gives NaN; training code passes a tiny ``eps``.
    """
    left1, top1, right1, bottom1 = first.unbind(-1)
    left2, top2, right2, bottom2 = second.unbind(-1)
    intersection, union = _overlap(first, second)
    hull = (torch.maximum(right1, right2) - torch.minimum(left1, left2)) * (
        torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
    )
    iou = intersection / (union + eps)
    return iou, iou - (hull - union) / (hull + eps)


def iou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """Intersection over union of ``xyxy`` boxes that broadcast."""
    intersection, union = _overlap(first, second)
    return intersection / (union + eps)


def _overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union."""
    left1, top1, right1, bottom1 = first.unbind(-1)
    left2, top2, right2, bottom2 = second.unbind(-1)
    width = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0)
    height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(min=0)
    intersection = width * height
    return intersection, (right1 - left1) * (bottom1 - top1) + (right2 - left2) * (bottom2 - top2) - intersection


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """(..., N, 4), (..., M, 4) ``xyxy`` -> (..., N, M)."""
    return iou(first.unsqueeze(-2), second.unsqueeze(-3))
