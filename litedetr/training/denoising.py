"""Contrastive denoising queries (DINO, Zhang et al. 2023, section 3.3).

Every object is given to the decoder as a few noisy copies: a slightly moved box (positive) that must find its object
again, and a further moved one (negative) that must answer "nothing". Copies come in groups; a group is one positive and
one negative copy of every object of the picture, and groups neither see each other nor are seen by ordinary queries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from litedetr.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from litedetr.output import DenoisingQueries
from litedetr.training.matching import Assignment
from litedetr.training.targets import Targets


@dataclass(frozen=True)
class DenoisingSettings:
    """``number``: about how many positives a picture gets; the noise is relative to half of the box's size; ``filled``: places
    that a picture does not need begin as the label that no class has, instead of as zeros: through closed layers, which are
    norms and nothing else, gradients of zeros grow beyond measure."""

    number: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    filled: bool = False


@dataclass(frozen=True)
class DenoisingDraws:
    """The random numbers, one row per copy: R = 2 * groups * N rows, positive and negative blocks alternating.

    label_uniform (R,) in [0, 1); new_labels: the replacements in order of the rows replaced; box_sign (R, 4) 0 or 1;
    box_uniform (R, 4) in [0, 1).
    """

    label_uniform: Tensor | None = None
    new_labels: Tensor | None = None
    box_sign: Tensor | None = None
    box_uniform: Tensor | None = None


@dataclass(frozen=True)
class Denoising:
    """The queries for the detector, and what the losses need: the number of groups, and which query is whose.

    image, query, target: (groups * N,) each positive query and its object in the flat list of the batch.
    """

    queries: DenoisingQueries
    groups: int
    image: Tensor
    query: Tensor
    target: Tensor

    def assignment(self, layers: int) -> Assignment:
        """The same pairs in each of ``layers`` decoder layers."""
        layer = torch.arange(layers, device=self.image.device).repeat_interleave(len(self.image))
        return Assignment(layer, self.image.repeat(layers), self.query.repeat(layers), self.target.repeat(layers))

    def part(self, start: int, stop: int, objects: int) -> Denoising:
        """That of the pictures from ``start`` to ``stop`` alone, whose first object is number ``objects`` of the batch."""
        mine = (self.image >= start) & (self.image < stop)
        queries = replace(
            self.queries,
            content=self.queries.content[start:stop],
            reference_points=self.queries.reference_points[start:stop],
        )
        return Denoising(queries, self.groups, self.image[mine] - start, self.query[mine], self.target[mine] - objects)


def group_count(number: int, largest: int) -> int:
    """How many groups fit: ``number`` is split among the objects of the fullest picture, at least one group."""
    doubled = 2 * number
    if largest and doubled >= 100:
        doubled //= 2 * largest
    return max(doubled, 1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """log(x / (1 - x)), both clamped to at least ``eps`` (the DINO family's value)."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def make_denoising(
    targets: Targets,
    label_embed: nn.Embedding,
    num_classes: int,
    num_queries: int,
    settings: DenoisingSettings = DenoisingSettings(),
    generator: torch.Generator | None = None,
    draws: DenoisingDraws | None = None,
) -> Denoising | None:
    """Noisy copies of a batch's objects; None where the batch has no objects.

    Random numbers come from ``generator`` (on the CPU) or, for tests, from ``draws``.
    """
    largest = max(targets.counts, default=0)
    if largest == 0:
        return None
    device, objects = targets.boxes.device, len(targets)
    groups = group_count(settings.number, largest)
    blocks = 2 * groups  # positive, negative, positive, ...
    labels = targets.labels.repeat(blocks)
    boxes = targets.boxes.repeat(blocks, 1)
    image = targets.image.repeat(blocks)
    block = torch.arange(blocks, device=device).repeat_interleave(objects)
    slot = targets.slots.repeat(blocks) + block * largest
    draws = draws if draws is not None else _draw(len(labels), settings, num_classes, generator)

    if settings.label_noise > 0:
        replaced = draws.label_uniform.to(device) < settings.label_noise / 2
        labels = labels.masked_scatter(replaced, draws.new_labels.to(device))
    if settings.box_noise > 0:
        boxes = _move_corners(boxes, (block % 2 == 1)[:, None], draws, settings.box_noise)

    size = blocks * largest
    batch, width = len(targets.counts), label_embed.embedding_dim
    embedded = label_embed(labels)
    blank = label_embed.weight[-1].to(embedded.dtype) if settings.filled else embedded.new_zeros(width)
    content = blank.expand(batch, size, width).index_put((image, slot), embedded)
    reference = boxes.new_zeros(batch, size, 4).index_put((image, slot), inverse_sigmoid(boxes))

    positive = block % 2 == 0
    return Denoising(
        queries=DenoisingQueries(
            content=content,
            reference_points=reference,
            attention_mask=_attention_mask(groups, 2 * largest, num_queries, device),
        ),
        groups=groups,
        image=image[positive],
        query=slot[positive],
        target=torch.arange(objects, device=device).repeat(groups),
    )


def _draw(rows: int, settings: DenoisingSettings, num_classes: int, generator: torch.Generator | None) -> DenoisingDraws:
    uniform = torch.rand(rows, generator=generator)
    replaced = int((uniform < settings.label_noise / 2).sum())
    return DenoisingDraws(
        label_uniform=uniform,
        new_labels=torch.randint(0, num_classes, (replaced,), generator=generator),
        box_sign=torch.randint(0, 2, (rows, 4), generator=generator).float(),
        box_uniform=torch.rand(rows, 4, generator=generator),
    )


def _move_corners(boxes: Tensor, negative: Tensor, draws: DenoisingDraws, scale: float) -> Tensor:
    """Each side moves by up to half of the box's size times ``scale``; a negative one by as much again."""
    sign = draws.box_sign.to(boxes) * 2 - 1
    part = (draws.box_uniform.to(boxes) + negative.to(boxes.dtype)) * sign
    half = boxes[:, 2:].repeat(1, 2) / 2
    return xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + part * half * scale).clamp(0, 1))


def _attention_mask(groups: int, group_size: int, num_queries: int, device: torch.device) -> Tensor:
    """(N + Q, N + Q) bool, True = may not look: groups apart, and no ordinary query sees a denoising one."""
    size = groups * group_size
    group = torch.full((size + num_queries,), groups, device=device)
    group[:size] = torch.arange(groups, device=device).repeat_interleave(group_size)
    blocked = group[:, None] != group[None, :]
    blocked[:size, size:] = False
    return blocked
