"""What a teacher sees in every place of a picture, taught to the encoder's tokens and to the queries that come from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from litedetr.boxes import cxcywh_to_xyxy, iou, iou_and_giou
from litedetr.output import DetectorOutput, LayerOutput
from litedetr.training.targets import Targets


@dataclass(frozen=True)
class DistillationSettings:
    """sharpness: power of |student - teacher| by which a class score counts (quality focal loss, Li et al. 2020); least: the
    teacher's best class score from which on a box is taught; overlap: IoU with an object from which on a box is
    one of that object's; labels: share of the objects in what is taught, where they are given, the rest is the teacher's."""

    sharpness: float = 1.0
    least: float = 0.05
    overlap: float = 0.5
    labels: float = 0.3


def taught_losses(
    output: DetectorOutput,
    usable: Tensor,
    teacher: LayerOutput,
    targets: Targets,
    settings: DistillationSettings = DistillationSettings(),
) -> dict[str, Tensor]:
    """`token_losses` of every encoder token (``_soft``) and of every decoder layer's queries (``_taught`` for the last one,
    ``_taught_0``, … for the earlier ones), of each of which the teacher says what it says of the token it comes from."""
    soft, boxes = answers(teacher, usable)
    losses = named(token_losses(output.every_token, soft, boxes, settings, targets), "soft")
    rows = output.tokens[..., None]  # (B, Q, 1)
    soft, boxes = (torch.gather(part, 1, rows.expand(-1, -1, part.shape[-1])) for part in (soft, boxes))
    layers = {"taught": LayerOutput(output.logits, output.boxes)}
    layers |= {f"taught_{index}": layer for index, layer in enumerate(output.auxiliary)}
    for name, layer in layers.items():
        losses |= named(token_losses(layer, soft, boxes, settings, targets), name)
    return losses


def named(losses: dict[str, Tensor], suffix: str) -> dict[str, Tensor]:
    """Under the names that `litedetr.training.losses.loss_weight` knows."""
    return {f"loss_{kind}_{suffix}": value for kind, value in losses.items()}


def answers(teacher: LayerOutput, usable: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's class scores (B, S, K) and boxes (B, S, 4) for all S tokens of the student, of which the finest T are its
    own: it has no coarser scale and sees nothing there, nor in tokens that are not ``usable`` (B, S)."""
    rest = usable.shape[1] - teacher.logits.shape[1]
    soft = F.pad(teacher.logits.sigmoid(), (0, 0, 0, rest)) * usable[..., None]
    return soft, F.pad(teacher.boxes, (0, 0, 0, rest))


def token_losses(
    student: LayerOutput,
    soft: Tensor,
    boxes: Tensor,
    settings: DistillationSettings = DistillationSettings(),
    targets: Targets | None = None,
) -> dict[str, Tensor]:
    """``ce``, ``bbox`` and ``giou``: how far a student is from its teacher, and from the objects where ``targets`` are given.

    Where the teacher sees something, the class scores taught are a mixture of its own and of the overlap of the student's box
    with an object of that class; the box taught is that of the object which it overlaps most and the teacher names, else the
    teacher's. An object has not one owner, as in set losses: all that see it learn it, and suppression picks one.

    Args:
        student: logits (B, N, K) and boxes (B, N, 4) cxcywh of its tokens or queries.
        soft: (B, N, K) the teacher's scores in 0..1; boxes: (B, N, 4) the teacher's.

    Returns:
        Each divided by the sum of the best class scores that are taught: about the number that see something.
    """
    seen = soft.amax(-1) >= settings.least  # (B, N)
    scores, wanted, worth = soft[seen], boxes[seen], soft.amax(-1)[seen]  # (M, K), (M, 4), (M,)
    if targets is not None and len(targets) and len(scores):
        objects = targets.boxes.float()
        overlap = iou(cxcywh_to_xyxy(student.boxes.detach()[seen].float())[:, None], cxcywh_to_xyxy(objects), eps=1e-9)  # (M, O)
        near = (overlap >= settings.overlap) & (seen.nonzero()[:, :1] == targets.image)
        overlap = torch.where(near, overlap, 0.0)
        labels = targets.labels.expand_as(overlap)
        quality = torch.zeros_like(scores).scatter_reduce(1, labels, overlap, "amax")
        fit, which = (overlap * scores.gather(1, labels).sqrt()).max(1)
        wanted, worth = torch.where(fit[:, None] > 0, objects[which], wanted), torch.maximum(fit, worth)
        soft = soft.index_put((seen,), scores.lerp(quality, settings.labels))
    logits = student.logits.float()
    weight = (logits.detach().sigmoid() - soft).abs() ** settings.sharpness
    classes = weight * F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    box, giou = box_losses(student.boxes[seen], wanted, worth)
    total = soft.amax(-1).sum().clamp(min=1)
    return {"ce": classes.sum() / total, "bbox": box / total, "giou": giou / total}


def box_losses(predicted: Tensor, wanted: Tensor, worth: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 4) and (N, 4) cxcywh, (N,) weights -> the weighted sums of their distances and of 1 - GIoU."""
    predicted = predicted.float()
    giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted), eps=1e-9)[1]
    return ((predicted - wanted).abs().sum(-1) * worth).sum(), ((1 - giou) * worth).sum()
