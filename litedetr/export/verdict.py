"""Does the exported file find what PyTorch finds?

Two-stage detectors choose their queries by rank among thousands of tokens, and a query's content may be that of its rank. Where
tokens score alike, float32's errors decide which comes first, in every program in its own way (and in PyTorch with another number
of threads). What such a tie leaves open is no fault of the file: PyTorch then decodes from the tokens that the file chose.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litedetr import image
from litedetr.detections import corners, iou, top_k
from litedetr.detector import Detector
from litedetr.runtime import Exported
from litedetr.shipped import shipped

PHOTOS = ("cat.jpg", "astronaut.jpg", "coffee.jpg")
BEST = 100
"""Detections of each photo that must have a counterpart."""
BOX_PIXELS, SCORE = 0.5, 1e-3
TIE = 1e-4
"""Class logits of two tokens that are closer are the same; float32's own errors are about 3e-6 (ResNet-50, six encoder steps)."""

Outputs = tuple[np.ndarray, np.ndarray]
"""One photo's logits (Q, K) and boxes (Q, 4) cxcywh in [0, 1]."""


@dataclass(frozen=True)
class Agreement:
    """How far the best detections of two models lie apart. What is worst of several photos counts, or the mean.

    Attributes:
        box_pixels, score: of the best 100 of each side, the largest distance to the counterpart on the other side: of a box' edge
            in pixels, and of the score.
        iou: mean over one side's best 100 of the IoU with the likest of the other side's best 100 of the same class (0: none).
        same_classes: share of the best 100's classes, counted as often as they occur, that are the other's, too.
    """

    box_pixels: float
    score: float
    iou: float
    same_classes: float

    def __str__(self) -> str:
        return (
            f"boxes within {self.box_pixels:.3g} px, scores within {self.score:.2g}; of the best {BEST} the mean matched IoU is "
            f"{self.iou:.4f}, {self.same_classes:.0%} of the classes are the same"
        )


@dataclass(frozen=True)
class Verdict:
    """Whether a file gives what PyTorch gives, and on how many photos that was seen; not asked for (None) of half precision.

    ties: how many queries began at another token than in PyTorch, of the same score within `TIE`, where all that differ do;
        the agreement is then with what PyTorch makes of the file's tokens.
    """

    agreement: Agreement
    photos: int
    runtime: str
    ok: bool | None
    ties: int = 0

    def to_json(self) -> str:
        limits = {"box_pixels": BOX_PIXELS, "score": SCORE, "best": BEST, "tie": TIE}
        return json.dumps(asdict(self) | {"limits": limits})

    def __str__(self) -> str:
        judged = {True: "the same", False: f"DIFFERENT (at most {BOX_PIXELS} px and {SCORE:g} are allowed)", None: "not judged"}
        ties = f" ({self.ties} queries from other tokens of equal scores, in both)" if self.ties else ""
        return f"{self.runtime} against PyTorch on {self.photos} photos: {self.agreement}{ties}: {judged[self.ok]}"


def judge(detector: Detector, file: Path, exact: bool = True) -> Verdict:
    """Run file and detector on the example photos; `exact`: they must be the same within float32's errors."""
    exported = Exported(file)
    plain = copy.deepcopy(detector).cpu().float().eval()
    pairs, ties = [], 0
    for name in PHOTOS:
        pixels, geometry = exported.prepare(image.open_photo(shipped("assets/examples") / name))
        got = exported.outputs(pixels)
        ours, tied = decoded(plain, torch.from_numpy(pixels), got.get("tokens"))
        ties += tied
        pairs.append((ours, (got["logits"][0], got["boxes"][0]), geometry.photo))
    found = agreement(pairs)
    ok = found.box_pixels <= BOX_PIXELS and found.score <= SCORE if exact else None
    return Verdict(found, len(pairs), exported.runtime, ok, ties)


@torch.inference_mode()
def decoded(detector: Detector, pixels: Tensor, theirs: np.ndarray | None = None) -> tuple[Outputs, int]:
    """What the detector finds in one photo, and how many queries it begins at `theirs`, the (1, Q) tokens that another program
    chose, because nothing but ties keeps them from being its own; 0 where they are, or where they are not."""
    pyramid = detector.neck(detector.backbone(pixels))
    memory = detector.encoder(pyramid)
    selected, tied = detector.selection(memory, pyramid), 0
    if theirs is not None:
        tokens = torch.from_numpy(theirs).to(selected.tokens)
        apart = (selected.scores.gather(1, tokens) - selected.scores.gather(1, selected.tokens)).abs()
        moved = int((tokens != selected.tokens).sum())
        if moved and apart.max() <= TIE:
            selected, tied = detector.selection(memory, pyramid, chosen=tokens), moved
    boxes = detector.heads.box_heads()
    states, refined = detector.decoder(
        selected.content, selected.references, memory, pyramid, boxes, positions=selected.positions
    )
    last = detector.heads(states, refined)[-1]
    return (last.logits[0].numpy(), last.boxes[0].numpy()), tied


def agreement(pairs: list[tuple[Outputs, Outputs, tuple[int, int]]]) -> Agreement:
    """Of two models on some photos: (the one's outputs, the other's, the photo's (height, width)) each."""
    apart = [_apart(*sides, size) for one, other, size in pairs for sides in ((one, other), (other, one))]
    alike = [_alike(one, other, size) for one, other, size in pairs]
    box_pixels, score = np.max(apart, axis=0)
    iou, same_classes = np.mean(alike, axis=0)
    return Agreement(float(box_pixels), float(score), float(iou), float(same_classes))


def _apart(one: Outputs, other: Outputs, size: tuple[int, int]) -> tuple[float, float]:
    """Of the one's best, the largest distance in pixels and in score to what is nearest to it, in both, among the other's."""
    scores, labels, boxes, _ = top_k(*one, size, BEST)
    pixels = np.abs(boxes[:, None] - corners(other[1]) * np.float32((*size[::-1], *size[::-1]))).max(-1)  # (N, Q)
    differences = np.abs(scores[:, None] - 1 / (1 + np.exp(-other[0].T[labels])))  # (N, Q)
    nearest = np.maximum(pixels / BOX_PIXELS, differences / SCORE).argmin(1)[:, None]
    return np.take_along_axis(pixels, nearest, 1).max(), np.take_along_axis(differences, nearest, 1).max()


def _alike(one: Outputs, other: Outputs, size: tuple[int, int]) -> tuple[float, float]:
    """Mean IoU with the likest of the same class, and the share of the same classes, among the best of both."""
    (_, labels, boxes, _), (_, others, other_boxes, _) = (top_k(*outputs, size, BEST) for outputs in (one, other))
    overlaps = iou(boxes, other_boxes) * (labels[:, None] == others)
    classes = one[0].shape[1]
    shared = np.minimum(np.bincount(labels, minlength=classes), np.bincount(others, minlength=classes)).sum()
    return overlaps.max(1).mean(), shared / len(labels)
