"""Times backbones for inference against the plain ones, in turns in one process:

    python -m litedetr.bench.backbones [--size 640] [--rounds 5] [--threads 1] [resnet50 swin_tiny …]

With one thread it is processor time, with more the clock on the wall.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, replace

import torch

from litedetr.backbones import backbone_of
from litedetr.config import BACKBONES, DetectorConfig
from litedetr.fast.backbone import fast_backbone
from litedetr.timing import Ratio, take_turns


@dataclass(frozen=True)
class BackboneRow:
    """One backbone for inference against the plain one: milliseconds (medians) and their ratio over the rounds."""

    backbone: str
    size: tuple[int, int]
    dtype: torch.dtype
    plain: float
    fast: float
    ratio: Ratio


def backbone_ratios(name: str, size: tuple[int, int], rounds: int = 5, threads: int = 1) -> list[BackboneRow]:
    """A row for float32 and one for bfloat16, with random weights.

    Args:
        name: one of `litedetr.config.BACKBONES`.
        size: height and width of the one picture.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            config = DetectorConfig(backbone=name)
            kind = backbone_of(config)
            backbone = kind.build(replace(config, backbone_width=kind.width)).eval()
            forms = {dtype: fast_backbone(backbone, dtype) for dtype in (torch.float32, torch.bfloat16)}
            pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
            runs = {str(dtype): lambda form=form: form(pixels) for dtype, form in forms.items()}
            times = take_turns({"plain": lambda: backbone(pixels)} | runs, rounds)
    finally:
        torch.set_num_threads(before)
    plain = times["plain"]
    return [
        BackboneRow(
            name, size, dtype,
            plain=statistics.median(plain.by(threads)),
            fast=statistics.median(times[str(dtype)].by(threads)),
            ratio=Ratio.of(times[str(dtype)], plain, threads),
        )
        for dtype in forms
    ]  # fmt: skip


def main() -> None:
    """Writes one line per row."""
    parser = argparse.ArgumentParser(description="Backbones for inference against the plain ones.")
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES), help=f"out of {', '.join(BACKBONES)}")
    parser.add_argument("--size", type=int, default=640, help="pixels of a side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    sys.stdout.write(
        "| backbone | size | dtype | plain, ms | fast, ms | ratio (lowest to highest) |\n| --- | --- | --- | --- | --- | --- |\n"
    )
    for name in arguments.backbones:
        for row in backbone_ratios(name, (arguments.size,) * 2, arguments.rounds, arguments.threads):
            spread = f"{row.ratio.value:.3f} ({row.ratio.lowest:.3f} to {row.ratio.highest:.3f})"
            dtype = str(row.dtype).removeprefix("torch.")
            sys.stdout.write(f"| {name} | {arguments.size} | {dtype} | {row.plain:.1f} | {row.fast:.1f} | {spread} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
