"""Step 0 of the embedded model: a Lite DETR that gives its teacher's detections before its first training step.

The teacher (`Teacher`) has a 1x1 convolution a scale; the student one class layer for the tokens of all scales, behind
a GroupNorm and LayerNorms. So the neck is made of the teacher's own convolutions, turned and scaled; a large constant beside
them leaves the norms nothing to change; encoder and decoder add nothing (`start.close_branches`). The class layer is
then a linear regression, the box head is fitted to the teacher's boxes, and all of them together to its answers.

    python -m litedetr.training.handover --teacher FILE --data DIR --out DIR
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from litedetr.backbones.nanodet import CLASSES, WIDTH, load_nanodet_backbone
from litedetr.config import DetectorConfig
from litedetr.detector import Detector
from litedetr.positions import box_proposals
from litedetr.pyramid import FeaturePyramid, PyramidNeck
from litedetr.training.augment import AugmentSettings
from litedetr.training.data import BatchStream, PhotoSet
from litedetr.training.distillation import answers, box_losses, named, token_losses
from litedetr.training.losses import LossSettings, total_loss
from litedetr.training.precision import autocast, normalise
from litedetr.training.start import close_branches
from litedetr.training.teacher import Teacher

log = logging.getLogger(__name__)
CONSTANT = 4.0
"""Deviations of the teacher's answers that the constant beside them has: with more of it the norms change less, and less is left
for what the encoder adds."""
NOTHING = -8.0
"""Class logit that the regression gives tokens in which the teacher has no say; its lowest answers are cut there, too."""


@dataclass(frozen=True)
class HandOverSettings:
    """How much of what: batches for the statistics and the regression; batches whose tokens the box head is fitted on, and its
    steps, each with so many ``box_tokens``; ``steps`` of all parts together, one batch each. Rates fall along a cosine."""

    size: int = 448
    batch: int = 8
    statistics: int = 20
    regression: int = 40
    boxes: int = 330
    box_steps: int = 12000
    box_tokens: int = 4096
    box_rate: float = 2e-3
    steps: int = 600
    rate: float = 3e-4
    rare: float = 0.04
    seed: int = 0
    augmentation: AugmentSettings = field(default_factory=lambda: AugmentSettings(mosaic=0, crop=0.5, colour=0.5))


def hand_over(
    detector: Detector, teacher: Teacher, photos: PhotoSet, settings: HandOverSettings = HandOverSettings(), progress: bool = True
) -> None:
    """Make a detector on the teacher's backbone give the teacher's detections; its other weights may be random before."""
    torch.manual_seed(settings.seed)
    for part in (detector.encoder, *detector.decoder.layers):
        reset_norms(part)
    close_branches(detector.encoder)
    close_decoder(detector)
    maps = _maps(detector, photos, settings)
    hand_over_neck(detector.neck, teacher, *statistics(teacher, (next(maps) for _ in range(settings.statistics))))
    with torch.no_grad():
        detector.selection.project.weight.copy_(torch.eye(WIDTH))
        detector.selection.project.bias.zero_()
    fit_classes(detector, teacher, (next(maps) for _ in range(settings.regression)))
    fit_boxes(detector, teacher, (next(maps) for _ in range(settings.boxes)), settings, progress)
    fit_tokens(detector, teacher, maps, settings, progress)
    name_classes(detector, teacher, (next(maps) for _ in range(settings.regression)))
    detector.heads.classes[0].load_state_dict(detector.selection.class_head.state_dict())


def pixels_of(
    photos: PhotoSet, config: DetectorConfig, size: int, batch: int, augmentation: AugmentSettings, seed: int = 0,
    rare: float = 0.0,
) -> Iterator[Tensor]:  # fmt: skip
    """One batch of normalised pixels (B, 3, H, W) after the other, without end."""
    stream = BatchStream(photos, augmentation, seed, rare)
    try:
        while True:
            while len(stream) < 3:
                stream.request(size, batch)
            found = stream.take()
            yield normalise(found.images, found.mask, config)
    finally:
        stream.close()


def _maps(detector: Detector, photos: PhotoSet, settings: HandOverSettings) -> Iterator[list[Tensor]]:
    """The backbone's maps of one batch after the other, without end."""
    for pixels in pixels_of(
        photos, detector.config, settings.size, settings.batch, settings.augmentation, settings.seed, settings.rare
    ):
        with torch.no_grad(), autocast(detector.device, "auto"):
            features = detector.backbone(pixels)
        yield [level.float() for level in features]


@torch.no_grad()
def reset_norms(part: nn.Module) -> None:
    """LayerNorms one after the other that change nothing after the first one."""
    for norm in part.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.reset_parameters()


@torch.no_grad()
def close_decoder(detector: Detector) -> None:
    """Every decoder layer gives its queries' contents and boxes as they came."""
    for layer in detector.decoder.layers:
        for last in (layer.self_attention.out_proj, layer.attention.output_proj, layer.ffn.linear2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    for head in detector.heads.boxes:
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)


@torch.no_grad()
def statistics(teacher: Teacher, batches: Iterator[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean (3, 124) per scale and deviation (124,) over all scales of what the teacher's convolutions give."""
    sums, squares, counts = torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.float64)
    for maps in batches:
        answers = [output(level).flatten(2).double() for output, level in zip(teacher.outputs, maps, strict=True)]
        sums = sums + torch.stack([answer.sum((0, 2)) for answer in answers])
        squares = squares + torch.stack([(answer**2).sum((0, 2)) for answer in answers])
        counts += torch.tensor([[len(answer) * answer.shape[2]] for answer in answers])
    mean = sums / counts
    return mean.float(), (squares / counts - mean**2).clamp(min=1e-4).sqrt().mean(0).float()


@torch.no_grad()
def hand_over_neck(neck: PyramidNeck, teacher: Teacher, mean: Tensor, deviation: Tensor) -> None:
    """Every level's convolution becomes the teacher's for that scale, normalised, turned, and with a constant beside it; that of
    the coarsest level, which the teacher has not, its coarsest one, smoothed.

    The constant is + and - in turns, so that it is most of what GroupNorm and LayerNorm see, and neither takes it away.
    Being turned at random, all channels vary alike from picture to picture.
    """
    ones, alternating = torch.ones(WIDTH), torch.tensor((1.0, -1.0)).repeat(WIDTH // 2)
    turn = torch.linalg.qr(torch.column_stack((ones, alternating, torch.randn(WIDTH, WIDTH - 2))))[0][:, 2:]
    turn, first, second = turn[:, :-2], turn[:, -2], turn[:, -1]  # two directions are left to tell levels apart
    marks = (torch.zeros(WIDTH), second, -first, first)
    smoothing = torch.tensor((0.25, 0.5, 0.25))
    for level, (convolution, norm) in enumerate(neck.projections):
        output, scale = teacher.outputs[min(level, 2)], mean[min(level, 2)]
        weight = turn @ (output.weight[:, :, 0, 0] / deviation[:, None])
        kernel = torch.ones(1, 1) if level < 3 else torch.outer(smoothing, smoothing)
        convolution.weight.copy_(weight[:, :, None, None] * kernel)
        convolution.bias.copy_(turn @ ((output.bias - scale) / deviation) + CONSTANT * alternating)
        norm.reset_parameters()
        norm.bias.copy_(marks[level])


def closed_memory(detector: Detector, maps: list[Tensor]) -> tuple[Tensor, FeaturePyramid]:
    """(B, S, d) what a closed encoder makes of the backbone's maps, without running it; and their layout."""
    pyramid = detector.neck(maps)
    return F.layer_norm(pyramid.tokens.float(), pyramid.tokens.shape[-1:]), pyramid


def anchors(detector: Detector, pyramid: FeaturePyramid) -> tuple[Tensor, Tensor]:
    """(B, S, 4) boxes that tokens start from, before the sigmoid; (B, S) bool, True = the token can be used."""
    return box_proposals(pyramid.shapes, pyramid.mask, cells=detector.config.anchor_cells)


@torch.no_grad()
def fit_classes(detector: Detector, teacher: Teacher, batches: Iterator[list[Tensor]]) -> None:
    """The class layer by ridge regression on the teacher's logits; tokens weigh by what the teacher sees in them."""
    rows = WIDTH + 1
    squares, products = torch.zeros(rows, rows, dtype=torch.float64), torch.zeros(rows, CLASSES, dtype=torch.float64)
    for maps in batches:
        memory, pyramid = closed_memory(detector, maps)
        wanted = teacher(maps).logits
        wanted = F.pad(wanted, (0, 0, 0, memory.shape[1] - wanted.shape[1]), value=NOTHING)
        wanted = wanted.masked_fill(~anchors(detector, pyramid)[1][..., None], NOTHING).clamp(min=NOTHING).flatten(0, 1)
        tokens = F.pad(detector.selection.norm(detector.selection.project(memory)), (0, 1), value=1.0).flatten(0, 1)
        weighted = tokens * (0.01 + wanted.amax(-1, keepdim=True).sigmoid())
        squares += (weighted.T @ tokens).double()
        products += (weighted.T @ wanted).double()
    squares += 1e-6 * squares.diagonal().mean() * torch.eye(rows)
    solution = torch.linalg.solve(squares, products).float()
    detector.selection.class_head.weight.copy_(solution[:WIDTH].T)
    detector.selection.class_head.bias.copy_(solution[WIDTH])


def fit_boxes(
    detector: Detector, teacher: Teacher, batches: Iterator[list[Tensor]], settings: HandOverSettings, progress: bool
) -> None:
    """The box head alone, on tokens in which the teacher sees something, kept in memory."""
    selection, least, kept = detector.selection, LossSettings().distillation.least, []
    with torch.no_grad():
        for maps in batches:
            memory, pyramid = closed_memory(detector, maps)
            proposals, usable = anchors(detector, pyramid)
            found = teacher(maps)
            T, worth = found.logits.shape[1], found.logits.amax(-1).sigmoid()
            seen = (worth >= least) & usable[:, :T]
            tokens = selection.norm(selection.project(memory[:, :T][seen]))
            kept.append((tokens.half(), proposals[:, :T][seen], found.boxes[seen], worth[seen]))
    tokens, proposals, wanted, worth = map(torch.cat, zip(*kept, strict=True))
    optimiser = torch.optim.AdamW(selection.box_head.parameters(), weight_decay=0)
    for step in trange(settings.box_steps, desc="box head", disable=not progress):
        chosen = torch.randint(len(tokens), (settings.box_tokens,))
        predicted = selection.boxes(tokens[chosen].float(), proposals[chosen]).sigmoid()
        box, giou = box_losses(predicted, wanted[chosen], worth[chosen])
        _step(optimiser, (5 * box + 2 * giou) / worth[chosen].sum(), [settings.box_rate], step, settings.box_steps)


def fit_tokens(
    detector: Detector, teacher: Teacher, batches: Iterator[list[Tensor]], settings: HandOverSettings, progress: bool
) -> None:
    """Neck, token projection, class layer and box head together, on every token."""
    selection, losses = detector.selection, LossSettings(soft=1.0)
    boxes = list(selection.box_head.parameters())
    parts = (detector.neck.projections, selection.project, selection.class_head)
    others = [parameter for part in parts for parameter in part.parameters()]  # not the norm: the decoder's norms undo it
    optimiser = torch.optim.AdamW([{"params": others}, {"params": boxes}], weight_decay=0)
    for step in trange(settings.steps, desc="tokens", disable=not progress):
        maps = next(batches)
        with autocast(detector.device, "auto"):
            memory, pyramid = closed_memory(detector, maps)
            student = selection.every_token(memory, pyramid)
        said = answers(teacher(maps), anchors(detector, pyramid)[1])
        found = named(token_losses(student, *said, losses.distillation), "soft")
        _step(optimiser, total_loss(found, losses), [settings.rate, 0.6 * settings.rate], step, settings.steps)


def _step(optimiser: torch.optim.Optimizer, loss: Tensor, rates: list[float], step: int, steps: int) -> None:
    factor = min((step + 1) / 50, 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate * factor
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 5.0)
    optimiser.step()


@torch.no_grad()
def name_classes(detector: Detector, teacher: Teacher, batches: Iterator[list[Tensor]]) -> None:
    """What a noisy query of a class begins with: the mean of the tokens in which the teacher sees that class; and a query of no
    class: that of tokens in which it sees nothing."""
    sums, counts = torch.zeros(CLASSES + 1, WIDTH), torch.zeros(CLASSES + 1, 1)
    for maps in batches:
        memory, _ = closed_memory(detector, maps)
        scores = teacher(maps).logits.sigmoid()
        tokens = detector.selection.norm(detector.selection.project(memory[:, : scores.shape[1]]))
        nothing = (scores.amax(-1, keepdim=True) < 0.05).float()
        scores = torch.cat((torch.where(scores >= 0.2, scores, 0.0), nothing), dim=-1).flatten(0, 1)
        sums += scores.T @ tokens.flatten(0, 1)
        counts += scores.sum(0)[:, None]
    known = counts[:, 0] > 0
    detector.label_embed.weight[known] = (sums / counts.clamp(min=1e-9))[known]


def main() -> None:
    """Command line: a weights folder that gives the teacher's detections."""
    parser = argparse.ArgumentParser(prog="python -m litedetr.training.handover", description=__doc__.split("\n\n")[0])
    parser.add_argument("--teacher", type=Path, required=True, help="NanoDet-g's weights, trained on COCO")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json and train/")
    parser.add_argument("--out", type=Path, required=True, help="the weights folder to write")
    parser.add_argument("--steps", type=int, default=HandOverSettings.steps, help="of all parts together")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    detector, teacher = Detector.from_preset("lite-dino-nanodet-g"), Teacher.from_file(options.teacher)
    load_nanodet_backbone(detector.backbone, options.teacher)
    hand_over(detector, teacher, PhotoSet.open(options.data, "train"), HandOverSettings(steps=options.steps))
    detector.save_pretrained(options.out, dtype=torch.float16)


if __name__ == "__main__":
    main()
