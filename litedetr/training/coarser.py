"""The scale beyond the teacher's coarsest one, which sees what that sees in the photo at half its size.

NanoDet-g's coarsest map has stride 32, and what fills a photo of 512 px is too large for it. At half the photo's size it is
not, and the map has the places of the student's stride 64. So the neck's strided convolution becomes the linear regression, from
the map at full size, of what the neck makes of the map at half; then the recipe `coarser` teaches `Teacher.coarser`'s answers.

    python -m litedetr.training.coarser --model DIR --data DIR --out DIR
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from litedetr.detector import Detector
from litedetr.training.augment import NONE
from litedetr.training.data import PhotoSet
from litedetr.training.handover import pixels_of
from litedetr.training.precision import autocast
from litedetr.training.ridge import ridge
from litedetr.training.teacher import halved

log = logging.getLogger(__name__)
BATCH = 8
RIDGE = 1e-3
"""Of the mean square of what the regression starts from."""


@torch.no_grad()
def fit_coarsest(detector: Detector, batches: Iterable[Tensor]) -> float:
    """Make the neck's last convolution, of stride 2, give what the one before gives of the photo at half its size.

    Args:
        batches: pixels (B, 3, H, W), normalised, without padding.

    Returns:
        Share of the variance that it explains.
    """
    (before, norm), (last, last_norm) = detector.neck.projections[-2:]
    squares = products = total = sums = count = 0
    for pixels in batches:
        with autocast(detector.device, "auto"):
            whole, half = (detector.backbone(part)[-1].float() for part in (pixels, halved(pixels)[0]))
        given = F.unfold(whole, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1).double()  # (N, 9 C)
        given = F.pad(given, (0, 1), value=1.0)
        wanted = before(half).flatten(2).transpose(1, 2).flatten(0, 1).double()  # (N, d)
        squares, products = squares + given.T @ given, products + given.T @ wanted
        total, sums, count = total + (wanted**2).sum(0), sums + wanted.sum(0), count + len(wanted)
    found = ridge(squares, products, RIDGE)
    last.weight.copy_(found[:-1].T.view_as(last.weight))
    last.bias.copy_(found[-1])
    last_norm.load_state_dict(norm.state_dict())
    missed = total - 2 * (found * products).sum(0) + (found * (squares @ found)).sum(0)
    return float(1 - missed.sum() / (total - sums**2 / count).sum())


def main() -> None:
    """Command line: the same weights folder with another convolution."""
    parser = argparse.ArgumentParser(prog="python -m litedetr.training.coarser", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="weights folder of a detector on NanoDet-g's backbone")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json and train/")
    parser.add_argument("--out", type=Path, required=True, help="the weights folder to write")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--size", type=int, default=512, help="of the photos' longer side")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    detector = Detector.from_pretrained(options.model)
    photos = PhotoSet.open(options.data, "train")
    batches = pixels_of(photos, detector.config, options.size, BATCH, NONE)
    explained = fit_coarsest(detector, islice(batches, -(-options.photos // BATCH)))
    log.info("%.0f %% of the variance at half the size explained", 100 * explained)
    detector.save_pretrained(options.out, dtype=torch.float16)


if __name__ == "__main__":
    main()
