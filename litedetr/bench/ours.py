"""This project's side of the benchmark: detectors and encoders, plain and optimised, with random weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from litedetr import ops
from litedetr.attention import KeyAwareDeformableAttention, Sampling
from litedetr.bench.core import key_aware_as_published
from litedetr.config import DetectorConfig
from litedetr.detector import Detector
from litedetr.encoder import InterleavedEncoder
from litedetr.timing import Contestant


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


def whole(detector: Detector, pixels: Tensor, backend: str = "auto") -> Contestant:
    """Pixels to logits and boxes."""

    def run() -> object:
        with torch.inference_mode(), ops.use(backend):
            return detector(pixels)

    return run


def encoder(config: DetectorConfig, pixels: Tensor, dtype: torch.dtype | None, backend: str = "auto") -> Contestant:
    """The encoder alone, on a pyramid made from the pixels; `dtype` None is the plain form, whose attention may be "published".

    The backbone before it is a small one, because only the shapes that it gives matter here.
    """
    config = replace(config, backbone="mobilenetv2", decoder_layers=1)
    detector = plain(config) if dtype is None else optimised(config, dtype)[0]
    if backend == "published":
        backend = "reference"
        use_published_attention(detector.encoder)
    with torch.inference_mode():
        pyramid = detector.neck(detector.backbone(pixels))

    def run() -> object:
        with torch.inference_mode(), ops.use(backend):
            return detector.encoder(pyramid)

    return run


class PublishedAttention(KeyAwareDeformableAttention):
    """`KeyAwareDeformableAttention` with its core as its authors have it, for inference."""

    def attend(self, query, locations, memory, spatial_shapes, padding_mask, return_weights) -> tuple[Tensor, Sampling]:
        B, Q, _ = query.shape
        value = self.project(self.value_proj, memory, padding_mask)
        key = self.project(self.key_proj, memory, padding_mask) if self.proj_key else value
        query = self.query_proj(query).view(B, Q, self.heads, -1)
        core = key_aware_as_published(query, key, value, spatial_shapes, locations)
        return core, Sampling(locations, None, value, query, key)


def use_published_attention(encoder: InterleavedEncoder) -> None:
    """Exchanges the attention of every layer; the weights stay."""
    for layer in encoder.layers:
        own = layer.attention
        shape = (own.width, own.heads, own.levels, own.points, own.same_loc)
        layer.attention = PublishedAttention(*shape, proj_key=own.proj_key)
        layer.attention.load_state_dict(own.state_dict())
