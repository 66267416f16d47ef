"""Teachers, on the maps that the student's backbone gives anyway: NanoDet-g's own head, and what a training starts from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litedetr.backbones.nanodet import BINS, CLASSES, WIDTH, read_nanodet
from litedetr.boxes import xyxy_to_cxcywh
from litedetr.network import Network
from litedetr.output import LayerOutput
from litedetr.positions import token_centres
from litedetr.training.recipes import START, Recipe

COARSEST = 32
"""Stride of its coarsest map."""


class Teacher(nn.Module):
    """Generalised focal head (Li et al. 2020): a class score that is the expected IoU, and four distances as distributions."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = nn.ModuleList(nn.Conv2d(WIDTH, CLASSES + 4 * BINS, 1) for _ in range(3))
        self.requires_grad_(False)

    @classmethod
    def from_file(cls, path: str | Path) -> Teacher:
        """The published head, out of the file that `litedetr.backbones.nanodet.read_nanodet` knows."""
        teacher = cls()
        teacher.outputs.load_state_dict(read_nanodet(path)[1])
        return teacher

    @torch.no_grad()
    def coarser(self, pixels: Tensor, backbone: nn.Module) -> LayerOutput:
        """What the coarsest head sees in pictures (B, 3, H, W) at half their size: the answers of the scale that it lacks."""
        half, larger = halved(pixels)
        level = backbone(half)[-1].float()
        logits, boxes = self._of(self.outputs[-1], level)
        return LayerOutput(logits, boxes * boxes.new_tensor(larger).repeat(2))

    @torch.no_grad()
    def forward(self, maps: Sequence[Tensor]) -> LayerOutput:
        """Maps of `NanoDetG` for pictures without padding (B, 128, h, w), finest first -> logits (B, S, 80) and boxes (B, S, 4)
        cxcywh in [0, 1] of all S tokens; a box may reach beyond the picture."""
        logits, boxes = [], []
        for output, level in zip(self.outputs, maps, strict=True):
            found = self._of(output, level)
            logits.append(found[0])
            boxes.append(found[1])
        return LayerOutput(torch.cat(logits, 1), torch.cat(boxes, 1))

    @staticmethod
    def _of(output: nn.Module, level: Tensor) -> tuple[Tensor, Tensor]:
        """One map (B, 128, H, W) -> logits (B, H * W, 80) and boxes (B, H * W, 4) of its cells."""
        B, _, H, W = level.shape
        raw = output(level).flatten(2).transpose(1, 2).float()  # (B, H * W, 124)
        return raw[..., :CLASSES], _boxes(raw[..., CLASSES:].view(B, H * W, 4, BINS), (H, W))


class Start(nn.Module):
    """A detector as it is before its training, which keeps it from unlearning what it knows of more pictures than these.

    Args:
        detector: of two stages; a copy of what comes after its backbone is kept.
    """

    def __init__(self, detector: Network):
        super().__init__()
        self.neck, self.encoder, self.selection = map(copy.deepcopy, (detector.neck, detector.encoder, detector.selection))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, maps: Sequence[Tensor]) -> LayerOutput:
        """Maps for pictures without padding, finest first -> logits (B, S, K) and boxes (B, S, 4) of all S tokens."""
        pyramid = self.neck(maps)
        found = self.selection.every_token(self.encoder(pyramid), pyramid)
        return LayerOutput(found.logits.float(), found.boxes.float())


def teacher_of(recipe: Recipe, detector: Network) -> Teacher | Start:
    """The recipe's teacher, for a detector that knows its classes and looks at its maps.

    Raises:
        ValueError: it is another detector.
    """
    config = detector.config
    if recipe.coarser and recipe.teacher == START:
        raise ValueError(
            f'expected a file with NanoDet-g\'s weights as the teacher of the coarsest scale, got "{START}": '
            "name one with --teacher"
        )
    if recipe.teacher == START:
        if "backbone" not in recipe.freeze or not config.two_stage:
            raise ValueError(
                f'expected a detector of two stages whose backbone is frozen for the teacher "{START}", got a {config.family} '
                f"with freeze={list(recipe.freeze)}: leave the teacher out"
            )
        return Start(detector)
    if config.backbone != "nanodet_g" or config.num_classes != CLASSES:
        raise ValueError(
            f"expected a detector on nanodet_g with COCO's {CLASSES} classes for this teacher, got {config.backbone} with "
            f"{config.num_classes} classes: leave the teacher out"
        )
    return Teacher.from_file(recipe.teacher)


def halved(pixels: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Pictures (B, 3, H, W) at half their size, padded by zeros to whole cells of the coarsest map; and how much wider and higher
    than the picture in it the result is."""
    H, W = (-(-side // 2) for side in pixels.shape[-2:])
    half = F.interpolate(pixels, (H, W), mode="bilinear", antialias=True)
    whole = F.pad(half, (0, -W % COARSEST, 0, -H % COARSEST))
    return whole, (whole.shape[-1] / W, whole.shape[-2] / H)


def _boxes(distances: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B, H * W, 4, bins) logits of the distances to left, top, right, bottom in cells -> (B, H * W, 4) cxcywh."""
    H, W = shape
    bins = torch.arange(BINS, dtype=distances.dtype, device=distances.device)
    cells = (distances.softmax(-1) * bins).sum(-1) / distances.new_tensor((W, H, W, H))
    centres = token_centres([shape], distances.new_ones(1, 1, 2))  # (1, H * W, 2)
    return xyxy_to_cxcywh(torch.cat((centres - cells[..., :2], centres + cells[..., 2:]), dim=-1))
