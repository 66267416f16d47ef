"""A published checkpoint to this project's format, and that to other runtimes'."""

from __future__ import annotations

import argparse

from litedetr.commands import size_of
from litedetr.detector import Detector
from litedetr.export import export
from litedetr.runtime import SUFFIXES
from litedetr.weights import convert


def run_convert(options: argparse.Namespace) -> int:
    config = convert(options.source, options.folder, options.schedule, options.heads)
    print(f"{options.folder}: {config.family}, {config.backbone}, encoder {config.schedule}, {config.num_classes} classes")
    return 0


def run_export(options: argparse.Namespace) -> int:
    runtime = SUFFIXES.get(options.out.suffix, "")
    if options.to and not runtime.startswith(options.to):
        ending = next(suffix for suffix, package in SUFFIXES.items() if package.startswith(options.to))
        raise ValueError(f"expected --out with the ending {ending} for {options.to}, got {options.out.name}")
    detector = Detector.from_preset(options.model) if options.random else Detector.from_pretrained(options.model)
    points = options.points
    if points == []:
        points = [detector.encoder.steps[-1].name, f"decoder {detector.config.decoder_layers}"]
    size = None if options.size is None else size_of(options.size if "x" in options.size else f"{options.size}x{options.size}")
    verdict = export(detector, options.out, sampling=options.sampling, size=size, points=points or (), half=options.half)
    print(verdict)
    megabytes = sum(file.stat().st_size for file in (options.out, options.out.with_suffix(".bin")) if file.is_file()) / 1e6
    print(f"{options.out}: {megabytes:.1f} MB")
    return 1 if verdict.ok is False else 0
