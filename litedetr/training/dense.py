"""An auxiliary one-to-many loss on every encoder token, used in training only.

One-to-one matching teaches a DETR encoder through a handful of queries a picture; a second, dense head teaches all its
tokens at once (Co-DETR, Zong et al. 2023). Tokens are assigned as in TOOD (Feng et al. 2021): an object takes the k
tokens inside it whose class score and box fit best; the class target is that fit (varifocal loss, Zhang et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from litedetr.batch.processes import ALONE, Processes
from litedetr.boxes import cxcywh_to_xyxy, iou, iou_and_giou
from litedetr.output import LayerOutput
from litedetr.positions import split_levels, token_centres, valid_ratios
from litedetr.training.matching import focal_background
from litedetr.training.targets import Targets


@dataclass(frozen=True)
class DenseSettings:
    """``topk`` tokens an object; alignment = score ** score_power * IoU ** iou_power."""

    topk: int = 10
    score_power: float = 1.0
    iou_power: float = 4.0
    alpha: float = 0.25
    gamma: float = 2.0


def dense_losses(
    dense: LayerOutput,
    shapes: Sequence[tuple[int, int]],
    mask: Tensor | None,
    targets: Targets,
    settings: DenseSettings = DenseSettings(),
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """``loss_ce_dense``, ``loss_bbox_dense``, ``loss_giou_dense`` of (B, S, K) logits and (B, S, 4) boxes.

    shapes: (height, width) of each level, finest first; mask (B, S), True = padding; processes: those whose batches
    make up the whole one, whose assigned tokens the losses are divided by.
    """
    logits, boxes = dense.logits.float(), dense.boxes.float()
    if mask is None:
        mask = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
    token, target, quality = assign_tokens(logits.detach(), boxes.detach(), shapes, mask, targets, settings)
    image = targets.image[target]
    weight = processes.sum(quality.sum()).clamp(min=1)

    background = focal_background(logits, settings.alpha, settings.gamma)
    if mask.any():
        background = background.masked_fill(mask[..., None], 0)
    score = logits[image, token, targets.labels[target]]
    present = quality * F.binary_cross_entropy_with_logits(score, quality, reduction="none")
    present = present - focal_background(score, settings.alpha, settings.gamma)
    predicted, wanted = boxes[image, token], targets.boxes[target].float()
    giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted), eps=1e-9)[1]
    return {
        "loss_ce_dense": (background.sum() + present.sum()) / weight,
        "loss_bbox_dense": ((predicted - wanted).abs().sum(-1) * quality).sum() / weight,
        "loss_giou_dense": ((1 - giou) * quality).sum() / weight,
    }


@torch.no_grad()
def assign_tokens(
    logits: Tensor,
    boxes: Tensor,
    shapes: Sequence[tuple[int, int]],
    mask: Tensor,
    targets: Targets,
    settings: DenseSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens that stand for objects: token (M,), object (M,) in the flat list, class target (M,) in 0..1.

    A token lies inside an object if its centre does; an object smaller than a cell of the finest level counts as large
    as that cell, so that it gets a token too. A token wanted by several objects goes to the one it overlaps most.
    """
    centres, cell = centres_and_cell(shapes, mask)
    if not len(targets):
        empty = torch.zeros(0, dtype=torch.int64, device=logits.device)
        return empty, empty, logits.new_zeros(0)
    wanted = targets.boxes.float()
    half = torch.maximum(wanted[:, 2:] / 2, cell[targets.image] / 2)  # (N, 2)
    inside = ((centres[targets.image] - wanted[:, None, :2]).abs() <= half[:, None]).all(-1)
    inside &= ~mask[targets.image]  # (N, S)

    overlap = iou(cxcywh_to_xyxy(boxes)[targets.image], cxcywh_to_xyxy(wanted)[:, None], eps=1e-9)  # (N, S)
    score = logits[targets.image, :, targets.labels].sigmoid()
    # a floor keeps the order of tokens defined, and objects served, while no box overlaps yet
    alignment = (score**settings.score_power * overlap.clamp(min=1e-3) ** settings.iou_power).masked_fill(~inside, -1)
    best, chosen = alignment.topk(min(settings.topk, alignment.shape[1]), dim=1)
    taken = torch.zeros_like(inside).scatter(1, chosen, best > 0)

    # one object a token: the one of the largest overlap, among the objects of its picture
    rank = torch.where(taken, overlap, overlap.new_tensor(-1.0))
    highest = rank.new_full((len(targets.counts), rank.shape[1]), -1.0)
    highest = highest.scatter_reduce(0, targets.image[:, None].expand_as(rank), rank, "amax")
    taken &= rank >= highest[targets.image]

    target, token = taken.nonzero(as_tuple=True)
    place = targets.image[target] * rank.shape[1] + token  # of equal overlaps, the last object keeps the token
    owner = target.new_full((rank.shape[1] * len(targets.counts),), -1).scatter_reduce(0, place, target, "amax")
    kept = owner[place] == target
    target, token = target[kept], token[kept]

    fit = alignment[target, token]
    largest_fit = fit.new_zeros(len(targets)).scatter_reduce(0, target, fit, "amax")
    largest_iou = fit.new_zeros(len(targets)).scatter_reduce(0, target, overlap[target, token], "amax")
    return token, target, fit / largest_fit[target].clamp(min=1e-12) * largest_iou[target]


def centres_and_cell(shapes: Sequence[tuple[int, int]], mask: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S, 2) centres (x, y), relative to each picture without padding, and (B, 2) the finest level's cell."""
    ratios = torch.stack([valid_ratios(level) for level in split_levels(mask, shapes)], dim=1)  # (B, L, 2)
    H, W = shapes[0]
    return token_centres(shapes, ratios), 1 / (ratios[:, 0] * ratios.new_tensor([W, H]))
