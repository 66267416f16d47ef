"""A detector as a graph of standard operators: pixels in; logits, boxes and the points of chosen steps out."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from litedetr import ops
from litedetr.attention import DeformableAttention, Sampling
from litedetr.detector import Detector
from litedetr.families.selection import Selection
from litedetr.fast import FastDetector
from litedetr.image import resized_size
from litedetr.pyramid import FeaturePyramid

OPSET = 17
"""The first one with layer norm as an operator; grid sampling came with 16."""

SAMPLING = {"grid_sample": "reference", "gather": "gather"}
"""How attention samples in the graph -> the backend of `litedetr.ops` that is traced."""

Size = tuple[int, int]


def to_onnx(detector: Detector, file: Path, sampling: str, size: Size | None, points: Sequence[str]) -> None:
    """Trace the detector. Arguments are those of `litedetr.export.export`.

    The graph takes ``pixels`` (B, 3, H, W), normalised and without padding, and gives ``logits`` (B, Q, K), ``boxes`` (B, Q, 4)
    cxcywh in [0, 1], where queries are chosen among tokens these tokens' indices as ``tokens`` (B, Q), and for every step of
    `points` its locations (B, Q, M, L, P, 2) and weights (B, Q, M, L, P), as ``<step>.locations`` and ``<step>.weights``. Batch,
    height and width are variables, the latter two only where `size` is None.
    """
    if sampling not in SAMPLING:
        raise ValueError(f"expected the sampling {' or '.join(SAMPLING)}, got {sampling!r}")
    if isinstance(detector, FastDetector):
        raise ValueError("expected a detector as it was loaded, got an optimized one: export the one that it was made from")
    if importlib.util.find_spec("onnx") is None:
        raise ValueError("expected the package onnx, which is not installed: pip install litedetr[export]")
    graph = Graph(detector, points)
    sizes = {0: "batch"} if size else {0: "batch", 2: "height", 3: "width"}
    # ONNX Runtime shares memory between sizes of one name, so that steps with other queries need names of their own.
    queries = dict.fromkeys(("logits", "boxes", *(("tokens",) if graph.selection else ())), "queries")
    queries |= {f"{step}.{part}": f"queries of {step}" for step in points for part in ("locations", "weights")}
    with torch.no_grad(), ops.use(SAMPLING[sampling]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the tracer takes as a constant is one; that sizes are none, the verdict says
        torch.onnx.export(
            graph, (torch.zeros(1, 3, *(size or example_size(detector))),), str(file), dynamo=False, opset_version=OPSET,
            input_names=["pixels"], output_names=list(queries),
            dynamic_axes={"pixels": sizes} | {name: {0: "batch", 1: axis} for name, axis in queries.items()},
        )  # fmt: skip


def example_size(detector: Detector) -> Size:
    """What a photo of 480 x 640 becomes."""
    c = detector.config
    return resized_size((480, 640), c.short_side, c.long_side, c.size_divisor)


class Graph(nn.Module):
    """A copy of a detector, in float32 on the CPU, as a function of pixels alone.

    Args:
        points: names of attention steps that are outputs, too.
    """

    def __init__(self, detector: Detector, points: Sequence[str] = ()):
        super().__init__()
        self.detector = copy.deepcopy(detector).cpu().float().eval()
        encoder, decoder = self.detector.encoder, self.detector.decoder
        layers = {step.name: layer for step, layer in zip(encoder.steps, encoder.layers, strict=True)}
        layers |= {f"decoder {index}": layer for index, layer in enumerate(decoder.layers, start=1)}
        unknown = [name for name in points if name not in layers]
        if unknown:
            raise ValueError(f"expected points of the steps {', '.join(layers)}, got {unknown[0]!r}")
        for name in points:
            layers[name].attention = Watched(layers[name].attention)
        self.watched = [layers[name].attention for name in points]
        self.selection = None
        if detector.config.two_stage:
            self.selection = self.detector.selection = WatchedSelection(self.detector.selection)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> logits, boxes, the chosen tokens if any are, and of each watched step its locations and weights."""
        output = self.detector(pixels)
        tokens = (self.selection.tokens,) if self.selection else ()
        samplings = [attention.sampling for attention in self.watched]
        return output.logits, output.boxes, *tokens, *(part for found in samplings for part in (found.locations, found.weights))


class WatchedSelection(nn.Module):
    """A two-stage selection that remembers which tokens it chose last."""

    def __init__(self, selection: nn.Module):
        super().__init__()
        self.selection = selection
        self.tokens: Tensor | None = None

    def forward(self, memory: Tensor, pyramid: FeaturePyramid) -> Selection:
        selected = self.selection(memory, pyramid)
        self.tokens = selected.tokens
        return selected


class Watched(nn.Module):
    """An attention that remembers what it last looked at."""

    def __init__(self, attention: DeformableAttention):
        super().__init__()
        self.attention = attention
        self.sampling: Sampling | None = None

    def forward(self, *inputs, return_sampling: bool = False) -> Tensor:
        output, self.sampling = self.attention(*inputs, return_sampling=True)
        return output
