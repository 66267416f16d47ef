"""What a teacher sees in every place of a picture, taught to the encoder's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from litedetr.boxes import cxcywh_to_xyxy, iou_and_giou
from litedetr.output import LayerOutput


@dataclass(frozen=True)
class DistillationSettings:
    """sharpness: power of |student - teacher| by which a class score counts (quality focal loss, Li et al. 2020); least: the
    teacher's best class score from which on a token's box is taught."""

    sharpness: float = 1.0
    least: float = 0.05


def token_losses(
    student: LayerOutput, usable: Tensor, teacher: LayerOutput, settings: DistillationSettings = DistillationSettings()
) -> dict[str, Tensor]:
    """``loss_ce_soft``, ``loss_bbox_soft`` and ``loss_giou_soft`` of the student's tokens, finest level first.

    Args:
        student: logits (B, S, K) and boxes (B, S, 4) cxcywh of all its tokens.
        usable: (B, S) bool; tokens that are not are taught to see nothing.
        teacher: logits and boxes of its T <= S tokens, which are the student's first ones; the student's other, coarser ones are
            taught to see nothing: the teacher has no such scale.

    Returns:
        Each divided by the sum of the teacher's best class scores: about the number of tokens that see something.
    """
    T = teacher.logits.shape[1]
    soft = teacher.logits.sigmoid() * usable[:, :T, None]
    best = soft.amax(-1)  # (B, T)
    soft = F.pad(soft, (0, 0, 0, student.logits.shape[1] - T))  # (B, S, K)
    logits = student.logits.float()
    weight = (logits.detach().sigmoid() - soft).abs() ** settings.sharpness
    classes = weight * F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    seen = best >= settings.least
    box, giou = box_losses(student.boxes[:, :T][seen], teacher.boxes[seen], best[seen])
    total = best.sum().clamp(min=1)
    return {"loss_ce_soft": classes.sum() / total, "loss_bbox_soft": box / total, "loss_giou_soft": giou / total}


def box_losses(predicted: Tensor, wanted: Tensor, worth: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 4) and (N, 4) cxcywh, (N,) weights -> the weighted sums of their distances and of 1 - GIoU."""
    predicted = predicted.float()
    giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted), eps=1e-9)[1]
    return ((predicted - wanted).abs().sum(-1) * worth).sum(), ((1 - giou) * worth).sum()
