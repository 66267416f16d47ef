"""This project's side of the benchmark: detectors and encoders, plain and optimised, with random weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from litedetr import ops
from litedetr.bench.timing import Run
from litedetr.config import DetectorConfig
from litedetr.detector import Detector


def plain(config: DetectorConfig) -> Detector:
    """The detector as it is trained, with the same random weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Detector(config)


def optimised(config: DetectorConfig, dtype: torch.dtype) -> tuple[Detector, int]:
    """The detector as it is used, and the size of its weights in bytes."""
    detector = plain(config)
    size = sum(tensor.nbytes for tensor in detector.state_dict().values())
    return detector.optimize(dtype), size


def whole(detector: Detector, pixels: Tensor, backend: str = "auto") -> Run:
    """Pixels to logits and boxes."""

    def run() -> object:
        with torch.inference_mode(), ops.use(backend):
            return detector(pixels)

    return run


def encoder(config: DetectorConfig, pixels: Tensor, dtype: torch.dtype | None, backend: str = "auto") -> Run:
    """The encoder alone, on a pyramid made from the pixels; `dtype` None is the plain form.

    The backbone before it is a small one, because only the shapes that it gives matter here.
    """
    config = replace(config, backbone="mobilenetv2", decoder_layers=1)
    detector = plain(config) if dtype is None else optimised(config, dtype)[0]
    with torch.inference_mode():
        pyramid = detector.neck(detector.backbone(pixels))

    def run() -> object:
        with torch.inference_mode(), ops.use(backend):
            return detector.encoder(pyramid)

    return run
