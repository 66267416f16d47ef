"""The set losses of DETR-like detectors, computed for all decoder layers at once.

Names follow the published implementations: ``loss_ce``, ``loss_bbox``, ``loss_giou`` (trained on) and ``loss_xy``,
``loss_hw``, ``cardinality_error``, ``class_error`` (watched), with ``_0``, ``_1``, … for the earlier decoder layers,
``_interm`` for the selected encoder tokens, ``_dn`` and ``_dn_0``, … for the denoising queries, ``_dense`` for the
one-to-many loss on all tokens, ``_soft`` for what a teacher says of them, ``_taught``, ``_taught_0``, … of the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from litedetr.batch.processes import ALONE, Processes
from litedetr.boxes import cxcywh_to_xyxy, iou_and_giou
from litedetr.output import DetectorOutput, LayerOutput
from litedetr.training.denoising import Denoising
from litedetr.training.dense import DenseSettings, dense_losses
from litedetr.training.distillation import DistillationSettings
from litedetr.training.matching import Assignment, MatchCost, focal_background, focal_foreground, match
from litedetr.training.targets import Targets

CLASS_LOSSES = ("focal", "varifocal", "matchability")


@dataclass(frozen=True)
class LossSettings:
    """Weights of the losses, and how the class of a matched query is taught.

    class_loss: ``focal`` (target 1; DINO), ``varifocal`` (target and weight are the box's IoU; Zhang et al. 2021, as in
    RT-DETR) or ``matchability`` (target IoU^gamma, full weight; DEIM, Huang et al. 2025).
    many: queries that stand for an object; more than one suits a detector whose doubles are dropped (``nms_iou``).
    dense: weight of the one-to-many loss on all encoder tokens, by the auxiliary head or, without one, by the first stage's own
    heads; soft: weight of a teacher's answers for all encoder tokens; taught: for the queries of every
    decoder layer; matched: of the one-to-one matching that a DETR is trained with. 0 turns them off.
    """

    label: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    interm: float = 1.0
    denoising: float = 1.0
    dense: float = 0.0
    soft: float = 0.0
    taught: float = 0.0
    matched: float = 1.0
    alpha: float = 0.25
    gamma: float = 2.0
    class_loss: str = "focal"
    many: int = 1
    cost: MatchCost = field(default_factory=MatchCost)
    dense_settings: DenseSettings = field(default_factory=DenseSettings)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)

    def __post_init__(self) -> None:
        if self.class_loss not in CLASS_LOSSES:
            raise ValueError(f"expected class_loss to be one of {CLASS_LOSSES}, got {self.class_loss!r}; choose one")


def detection_losses(
    output: DetectorOutput,
    targets: Targets,
    denoising: Denoising | None = None,
    settings: LossSettings = LossSettings(),
    diagnostics: bool = False,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """Every loss of one batch by name; `total_loss` adds them up.

    With ``diagnostics`` also ``cardinality_error`` and ``class_error``, which cost time and teach nothing.
    With several ``processes`` this is one's part of the whole batch: losses are divided by the objects of all, so that
    they, and their gradients, add up to the whole batch's.
    """
    losses = {}
    tokens = output.dense if output.dense is not None else output.every_token
    if settings.dense > 0 and tokens is not None:  # first: what comes after may fail here and not elsewhere
        shapes, mask = output.dense_shapes, output.dense_mask
        losses |= dense_losses(tokens, shapes, mask, targets, settings.dense_settings, processes)
    count = float(max(processes.total(len(targets)), 1))
    layers = [LayerOutput(output.logits, output.boxes), *output.auxiliary]
    suffixes = ["", *(f"_{i}" for i in range(len(output.auxiliary)))]
    if output.proposals is not None:
        layers.append(output.proposals)
        suffixes.append("_interm")
    if settings.matched > 0:
        logits, boxes = _stack(layers)
        pairs = match(logits.detach(), boxes.detach(), targets, settings.cost, settings.many)
        losses |= _named(_layer_losses(logits, boxes, targets, pairs, count * settings.many, settings), suffixes)
        if diagnostics:
            losses |= _named({"cardinality_error": _cardinality_error(logits, targets)}, suffixes)
            losses["class_error"] = _class_error(logits, targets, pairs)
    if denoising is not None:
        logits, boxes = _stack(output.denoising)
        pairs = denoising.assignment(len(output.denoising))
        suffixes = [*(f"_dn_{i}" for i in range(len(output.denoising) - 1)), "_dn"]
        losses |= _named(_layer_losses(logits, boxes, targets, pairs, count * denoising.groups, settings), suffixes)
        if diagnostics:
            losses |= _named({"cardinality_error": _cardinality_error(logits, targets)}, suffixes)
    return losses


def loss_weight(name: str, settings: LossSettings) -> float:
    """What a loss counts in the total; 0 for those that are only watched."""
    kind, _, suffix = name.removeprefix("loss_").partition("_")
    if not name.startswith("loss_"):
        return 0.0
    base = {"ce": settings.label, "bbox": settings.l1, "giou": settings.giou}.get(kind, 0.0)
    if suffix == "interm":
        return base * settings.matched * settings.interm
    if suffix == "dense":
        return base * settings.dense
    if suffix == "soft":
        return base * settings.soft
    if suffix.startswith("taught"):
        return base * settings.taught
    return base * (settings.denoising if suffix.startswith("dn") else settings.matched)


def total_loss(losses: dict[str, Tensor], settings: LossSettings = LossSettings()) -> Tensor:
    """The weighted sum that is trained on."""
    weighted = [value * weight for name, value in losses.items() if (weight := loss_weight(name, settings))]
    return torch.stack(weighted).sum()


def _stack(layers: Sequence[LayerOutput]) -> tuple[Tensor, Tensor]:
    """Layers of (B, Q, K) and (B, Q, 4) -> (L, B, Q, K), (L, B, Q, 4), at least in single precision."""
    logits = torch.stack([layer.logits for layer in layers])
    boxes = torch.stack([layer.boxes for layer in layers])
    return (logits, boxes) if logits.dtype == torch.float64 else (logits.float(), boxes.float())


def _named(values: dict[str, Tensor], suffixes: Sequence[str]) -> dict[str, Tensor]:
    """(L,) tensors -> one scalar per layer, under its layer's name."""
    return {name + suffix: item for name, row in values.items() for suffix, item in zip(suffixes, row.unbind(), strict=True)}


def _layer_losses(
    logits: Tensor, boxes: Tensor, targets: Targets, pairs: Assignment, count: float, settings: LossSettings
) -> dict[str, Tensor]:
    """(L, B, Q, K), (L, B, Q, 4) -> (L,) per loss, each divided by the number of objects."""
    predicted = boxes[pairs.layer, pairs.image, pairs.query]  # (M, 4)
    wanted = targets.boxes[pairs.target].to(boxes.dtype)
    distance = (predicted - wanted).abs()
    iou, giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted), eps=1e-9)

    score = logits[pairs.layer, pairs.image, pairs.query, targets.labels[pairs.target]]
    present = _foreground(score, iou.detach(), settings) - focal_background(score, settings.alpha, settings.gamma)
    absent = focal_background(logits, settings.alpha, settings.gamma).sum((1, 2, 3))

    def per_layer(values: Tensor) -> Tensor:
        return logits.new_zeros(len(logits)).index_add(0, pairs.layer, values) / count

    with torch.no_grad():
        watched = {"loss_xy": per_layer(distance[:, :2].sum(-1)), "loss_hw": per_layer(distance[:, 2:].sum(-1))}
    return {
        "loss_ce": absent / count + per_layer(present),
        "loss_bbox": per_layer(distance.sum(-1)),
        "loss_giou": per_layer(1 - giou),
        **watched,
    }


def _foreground(score: Tensor, quality: Tensor, settings: LossSettings) -> Tensor:
    """The class loss of matched queries; ``quality`` is the IoU of their boxes with the objects'."""
    if settings.class_loss == "focal":
        return focal_foreground(score, settings.alpha, settings.gamma)
    quality = quality.clamp(0, 1)
    if settings.class_loss == "varifocal":
        return quality * F.binary_cross_entropy_with_logits(score, quality, reduction="none")
    return F.binary_cross_entropy_with_logits(score, quality**settings.gamma, reduction="none")


@torch.no_grad()
def _cardinality_error(logits: Tensor, targets: Targets) -> Tensor:
    """(L,) mean difference of the numbers of objects and of queries whose best class is not the last one (DETR)."""
    found = (logits.argmax(-1) != logits.shape[-1] - 1).sum(-1).to(logits.dtype)
    return (found - found.new_tensor(targets.counts)).abs().mean(-1)


@torch.no_grad()
def _class_error(logits: Tensor, targets: Targets, pairs: Assignment) -> Tensor:
    """Percentage of the last layer's matched queries whose best class is wrong."""
    last = pairs.layer == 0
    if not last.any():
        return logits.new_tensor(100.0)
    best = logits[0, pairs.image[last], pairs.query[last]].argmax(-1)
    return 100 - 100 * (best == targets.labels[pairs.target[last]]).to(logits.dtype).mean()
