"""What a detector does one after the other, each by itself: where the time goes, and what further threads are worth."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from litedetr import image, ops
from litedetr.bench.core import inputs, levels
from litedetr.network import Network
from litedetr.timing import Contestant

WHOLE = "all of it"


def of(detector: Network, size: tuple[int, int]) -> dict[str, Contestant]:
    """The stages by name, of a JPEG of noise of this (height, width); the last one is all of them together."""
    photo = noise(size)
    opened = image.open_photo(photo)
    with torch.inference_mode():
        pixels, _, geometry = detector.prepare(opened)
        features = detector.backbone(pixels)
        pyramid = detector.neck(features)
        memory = detector.encoder(pyramid)
        selected = detector.selection(memory, pyramid)
        output = detector.infer(pixels)

    def decoder() -> object:
        heads = detector.heads
        states, boxes = detector.decoder(
            selected.content, selected.references, memory, pyramid, heads.box_heads(), positions=selected.positions
        )
        return heads(states, boxes)

    runs: dict[str, Contestant] = {
        "decode": lambda: image.open_photo(photo),
        "resize": lambda: detector.prepare(opened),
        "backbone": lambda: detector.backbone(pixels),
        "neck": lambda: detector.neck(features),
        "encoder": lambda: detector.encoder(pyramid),
        "selection": lambda: detector.selection(memory, pyramid),
        "decoder": decoder,
        "post-processing": lambda: detector.detections(output, [geometry]),
        WHOLE: lambda: detector.predict(photo),
    }
    return {name: _inferring(run) for name, run in runs.items()}


def attention(size: tuple[int, int], queries: str, width: int, heads: int) -> Contestant:
    """Key-aware attention alone on a photo of this size; `queries` as in `litedetr.bench.core`."""
    shapes = levels(size)
    tensors = inputs(shapes, queries, width, heads, "near")
    query, value, locations = (tensors[name] for name in ("query", "value", "locations"))
    return _inferring(lambda: ops.key_aware_deformable_attention(query, value, value, shapes, locations))


def noise(size: tuple[int, int]) -> bytes:
    """A JPEG of this (height, width)."""
    coarse = np.random.default_rng(0).integers(0, 256, (max(1, size[0] // 8), max(1, size[1] // 8), 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def with_threads(threads: int, run: Contestant) -> Contestant:
    """The run with so many of PyTorch's threads."""

    def counted() -> object:
        torch.set_num_threads(threads)
        return run()

    return counted


def _inferring(run: Contestant) -> Contestant:
    def inferring() -> object:
        with torch.inference_mode():
            return run()

    return inferring
