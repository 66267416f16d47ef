"""Rows of the class heads for classes of which a start knows nothing: a linear probe on its own features.

What a detector learned from many pictures tells other objects apart, too. Least squares on what goes into each class head find
the row that does so, in one look at some pictures; steps as small as a finetuning's would need hours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from litedetr.detector import Detector
from litedetr.families.heads import ClassHead
from litedetr.training.data import PhotoSet
from litedetr.training.likeness import OVERLAP, overlaps, pictures_of
from litedetr.training.ridge import ridge

log = logging.getLogger(__name__)
YES, NO = 2.0, -6.0
"""Logits that are wanted for what lies on such an object, and for all else."""
OTHERS = 10.0
"""How much more all else counts than what lies on such objects."""
RIDGE = 1e-2
"""Of the features' mean square."""


@torch.no_grad()
def linear_probe(detector: Detector, photos: PhotoSet, labels: Sequence[int]) -> dict[str, list[Tensor | None]]:
    """For each class head, by its name in the detector, and each of the set's classes ``labels``: a row (d + 1,), its bias last;
    None where no box of the detector lies on such an object."""
    inputs: dict[str, Tensor] = {}  # of each head, in its last call

    def keep(name: str) -> Callable[..., None]:
        return lambda _, given: inputs.__setitem__(name, given[0][0])

    heads = {name: module for name, module in detector.named_modules() if isinstance(module, ClassHead)}
    hooks = [head.register_forward_pre_hook(keep(name)) for name, head in heads.items()]
    squares: dict[tuple[str, int | None], Tensor] = {}  # sums of x xT over what lies on a class' objects, and over everything
    try:
        for index in pictures_of(photos, labels):
            sample = photos.sample(index)
            pixels, _, geometry = detector.prepare(sample.image)
            output = detector.from_features(detector.backbone(pixels), None, every_token=detector.config.two_stage)
            for name, given in inputs.items():
                boxes = output.every_token.boxes if name.startswith("selection.") else output.boxes
                near = overlaps(sample.boxes, geometry.photo, boxes[0]) >= OVERLAP  # (O, N)
                x = F.pad(given.cpu().double(), (0, 1), value=1.0)  # (N, d + 1)
                for label in (None, *labels):
                    part = x if label is None else x[near[torch.from_numpy(sample.labels) == label].any(0)]
                    squares[name, label] = squares.get((name, label), 0) + part.T @ part
    finally:
        for hook in hooks:
            hook.remove()
    found = {name: [_row(squares[name, label], squares[name, None]) for label in labels] for name in inputs}
    for place, label in enumerate(labels):
        fitted = any(rows[place] is not None for rows in found.values())
        how = "by a linear probe on its objects" if fitted else "at random: no box of the start lies on its objects"
        log.info("%s: begins %s", photos.names[label], how)
    return found


def _row(own: Tensor, everything: Tensor) -> Tensor | None:
    """The row (d + 1,) by weighted least squares, from the sums of x xT (d + 1, d + 1), whose last row holds the sums of x."""
    count, rest = float(own[-1, -1]), everything - own
    if not count:
        return None
    weight = OTHERS * count / max(float(rest[-1, -1]), 1.0)
    return ridge(own + weight * rest, YES * own[-1] + NO * weight * rest[-1], RIDGE).float()
