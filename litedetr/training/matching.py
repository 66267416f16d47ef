"""Matching of queries and objects (DETR, Carion et al. 2020; costs of Deformable DETR, Zhu et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from litedetr.boxes import cxcywh_to_xyxy, iou_and_giou
from litedetr.training.targets import Targets


@dataclass(frozen=True)
class MatchCost:
    """Weights of the three costs, and the focal loss' two numbers."""

    label: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0


@dataclass(frozen=True)
class Assignment:
    """M pairs: query ``query`` of picture ``image`` in layer ``layer`` stands for object ``target``; all (M,) int64.

    ``target`` counts through the flat list of a batch's objects (`Targets`).
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match_costs(logits: Tensor, boxes: Tensor, targets: Targets, cost: MatchCost) -> Tensor:
    """(L, B, Q, K) logits, (L, B, Q, 4) boxes, N objects -> (L, N, Q): what each query would cost its object."""
    score = logits[:, targets.image, :, targets.labels].transpose(0, 1)  # advanced indexing puts N first
    probability = score.sigmoid()
    absent = (1 - cost.alpha) * probability**cost.gamma * -torch.log(1 - probability + 1e-8)
    present = cost.alpha * (1 - probability) ** cost.gamma * -torch.log(probability + 1e-8)
    candidate = boxes[:, targets.image]  # (L, N, Q, 4)
    wanted = targets.boxes.to(boxes.dtype)[None, :, None]
    distance = (candidate - wanted).abs().sum(-1)
    giou = iou_and_giou(cxcywh_to_xyxy(candidate), cxcywh_to_xyxy(wanted), eps=1e-12)[1]
    return cost.l1 * distance + cost.label * (present - absent) - cost.giou * giou


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: Targets, cost: MatchCost = MatchCost(), many: int = 1) -> Assignment:
    """The cheapest matching of every layer and picture: one query an object, or `many` (H-DETR, Jia et al. 2023, section 3.2).

    Costs of all layers are computed at once and leave the device once; only the objects' own rows are compared.
    Where a picture has more objects than queries, the dearest objects stay without a query.
    """
    table = match_costs(logits, boxes, targets, cost).double().cpu().numpy()
    if not np.isfinite(table).all():
        raise FloatingPointError(
            "expected finite logits and boxes, got NaN or infinity; lower the learning rate or resume from a checkpoint"
        )
    layers, queries, objects = [], [], []
    start = 0
    for count in targets.counts:
        for layer in range(len(table) if count else 0):
            rows, columns = linear_sum_assignment(np.tile(table[layer, start : start + count], (many, 1)))
            layers.append(np.full(len(rows), layer))
            queries.append(columns)
            objects.append(rows % count + start)
        start += count
    layer, query, target = (
        torch.from_numpy(np.concatenate(part) if part else np.zeros(0)).long().to(logits.device)
        for part in (layers, queries, objects)
    )
    return Assignment(layer=layer, image=targets.image[target], query=query, target=target)


def focal_background(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss (Lin et al. 2017) of logits whose class is absent, element by element."""
    probability = logits.sigmoid()
    factor = probability * probability if gamma == 2.0 else probability**gamma
    return (1 - alpha) * factor * F.softplus(logits)


def focal_foreground(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of logits whose class is present, element by element."""
    return alpha * (1 - logits.sigmoid()) ** gamma * F.softplus(-logits)
