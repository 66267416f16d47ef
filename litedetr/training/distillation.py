"""What a teacher knows about every token, taught to the encoder's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from litedetr.boxes import cxcywh_to_xyxy, iou_and_giou
from litedetr.output import LayerOutput


@dataclass(frozen=True)
class DistillationSettings:
    """Weights of the losses; sharpness: power of |student - teacher| that a class counts with; least: best class score of a
    token from which on its box is taught."""

    label: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    sharpness: float = 1.0
    least: float = 0.05


def token_losses(student: LayerOutput, teacher: LayerOutput, settings: DistillationSettings) -> dict[str, Tensor]:
    """``loss_ce_soft``, ``loss_bbox_soft`` and ``loss_giou_soft`` of the student's tokens, finest level first.

    Args:
        student: logits (B, S, K) and boxes (B, S, 4) cxcywh of all its tokens.
        teacher: the same of its first T <= S ones; those of the student's coarser levels are taught to see nothing.

    Returns:
        Each divided by the sum of the teacher's best class scores: about the number of tokens that see something.
    """
    T = teacher.logits.shape[1]
    soft = F.pad(teacher.logits.sigmoid(), (0, 0, 0, student.logits.shape[1] - T))  # (B, S, K)
    logits = student.logits.float()
    weight = (logits.detach().sigmoid() - soft).abs() ** settings.sharpness
    classes = weight * F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    best = teacher.logits.amax(-1).sigmoid()  # (B, T)
    total = best.sum().clamp(min=1)
    seen = best >= settings.least
    wanted, predicted, worth = teacher.boxes[seen], student.boxes[:, :T][seen].float(), best[seen]
    giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted), eps=1e-9)[1]
    return {
        "loss_ce_soft": classes.sum() / total,
        "loss_bbox_soft": ((predicted - wanted).abs().sum(-1) * worth).sum() / total,
        "loss_giou_soft": ((1 - giou) * worth).sum() / total,
    }


def distillation_total(losses: dict[str, Tensor], settings: DistillationSettings) -> Tensor:
    """The weighted sum that is trained on."""
    weights = {"loss_ce_soft": settings.label, "loss_bbox_soft": settings.l1, "loss_giou_soft": settings.giou}
    return torch.stack([losses[name] * weight for name, weight in weights.items()]).sum()
