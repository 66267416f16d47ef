"""Network: pixels -> predictions, photo -> `Detections`. A `Detector` is one that knows where weights come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from litedetr import image, ops
from litedetr.backbones import build_backbone
from litedetr.config import DetectorConfig
from litedetr.decoder import DeformableDecoder
from litedetr.detections import Detections
from litedetr.encoder import InterleavedEncoder
from litedetr.families import family_of
from litedetr.families.heads import DenseHead, DetectionHeads
from litedetr.families.selection import Selection, TokenHeads
from litedetr.output import DenoisingQueries, DetectorOutput, LayerOutput
from litedetr.pyramid import PyramidNeck
from litedetr.replay import Replay, StepCache
from litedetr.trace import Trace, stage

BATCH = 8
"""Photos of one size that `predict_batch` runs at once."""

Prepared = tuple[Tensor, Tensor, image.PhotoGeometry]
"""One photo as the network takes it: pixels (1, 3, h, w), mask (1, h, w) bool True = padding, and how it lies there."""


class Network(nn.Module):
    """A DETR-style detector with an interleaved encoder: backbone, neck, encoder, query selection, decoder, heads."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config = config
        c, family = config, family_of(config)
        self.backbone = build_backbone(c)
        self.neck = PyramidNeck(self.backbone.channels, c.width, c.levels, c.temperature, c.position_shift)
        self.encoder = InterleavedEncoder.from_config(c)
        self.selection = family.selection(c)
        self.decoder = DeformableDecoder(
            c.decoder_layers, c.width, c.heads, c.levels, c.points, c.decoder_ffn, c.key_aware,
            from_boxes=family.boxes_give_positions, look_forward_twice=family.look_forward_twice, eps=family.eps,
        )  # fmt: skip
        self.heads = DetectionHeads(c.width, c.classes, c.decoder_layers, c.shared_heads, c.box_refine, family.eps)
        if family.denoising:
            self.label_embed = nn.Embedding(c.num_classes + 1, c.width)  # contents of denoising queries, in training
        if not c.two_stage:
            self.heads.start_small()
        self.dense_head = DenseHead(c.width, c.classes) if c.dense_head else None
        self.eval()

    def with_encoder(self, encoder: nn.Module) -> Self:
        """The same detector around another encoder, sharing everything else."""
        other = type(self).__new__(type(self))
        nn.Module.__init__(other)
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}  # the rest is PyTorch's
        for name, value in {**own, **dict(self.named_children()), "encoder": encoder}.items():
            setattr(other, name, value)
        return other

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) of what runs one after the other: "backbone", "B1 high", …, "decoder 1", …"""
        encoder = [(step.name, self.encoder.layers[step.index].attention) for step in self.encoder.steps]
        decoder = [(f"decoder {index}", layer) for index, layer in enumerate(self.decoder.layers, start=1)]
        return [("backbone", self.backbone), *encoder, *decoder]

    @property
    def num_queries(self) -> int:
        """Object queries per photo (fewer where a photo has fewer tokens)."""
        return self.config.queries

    @property
    def device(self) -> torch.device:
        return self.neck.level_embed.device

    def forward(
        self,
        pixels: Tensor,
        mask: Tensor | None = None,
        *,
        denoising: DenoisingQueries | None = None,
        one_to_many: bool = False,
        dense: bool = False,
        trace: Trace | None = None,
    ) -> DetectorOutput:
        """Predict from normalised pixels.

        Args:
            pixels: (B, 3, H, W) float.
            mask: (B, H, W) bool, True = padding; None where nothing is.
            denoising: queries put before the ordinary ones, in training (DINO family).
            one_to_many: also run the second set of queries, in training (H-DETR).
            dense: also predict from every encoder token, in training (needs ``config.dense_head``).
            trace: filled with every attention step; one photo at a time.

        Returns:
            `DetectorOutput` with logits (B, Q, K) and boxes (B, Q, 4) cxcywh in [0, 1] of the image without its padding.
        """
        with stage(trace, "backbone"):
            features = self.backbone(pixels)
        return self.from_features(features, mask, denoising=denoising, one_to_many=one_to_many, dense=dense, trace=trace)

    def from_features(
        self,
        features: Sequence[Tensor],
        mask: Tensor | None = None,
        *,
        denoising: DenoisingQueries | None = None,
        one_to_many: bool = False,
        dense: bool = False,
        every_token: bool = False,
        trace: Trace | None = None,
    ) -> DetectorOutput:
        """What `forward` does after the backbone, from the backbone's maps (B, C_l, H_l, W_l), finest first.

        every_token: also what every encoder token predicts with the first stage's heads, in training (two-stage models).
        """
        if one_to_many and not self.config.one_to_many_queries:
            family = self.config.family
            raise ValueError(f"expected a model with one-to-many queries (H-DETR), got {family}: leave one_to_many out")
        with stage(trace, "neck"):
            pyramid = self.neck(features, mask)
            if trace is not None:
                trace.begin(pyramid)
        with stage(trace, "encoder"):
            memory = self.encoder(pyramid, trace)
        with stage(trace, "selection"):
            selected = self.selection(memory, pyramid, one_to_many) if one_to_many else self.selection(memory, pyramid)
        with stage(trace, "decoder"):
            content, references, attention_mask = _put_before(denoising, selected)
            if trace is not None:
                trace.begin_decoder(selected.content, selected.positions)
            states, boxes = self.decoder(
                content, references, memory, pyramid, self.heads.box_heads(), attention_mask, trace, selected.positions
            )
            layers = self.heads(states, boxes)
        if trace is not None:
            proposals = self.selection.every_token(memory, pyramid) if isinstance(self.selection, TokenHeads) else None
            _record(trace, selected, boxes[0], layers, proposals)
        noisy, layers = _split(layers, 0 if denoising is None else denoising.content.shape[1])
        layers, many = (layers, []) if selected.one_to_one is None else _split(layers, selected.one_to_one)
        return DetectorOutput(
            logits=layers[-1].logits,
            boxes=layers[-1].boxes,
            auxiliary=tuple(layers[:-1]),
            tokens=selected.tokens,
            proposals=selected.output,
            denoising=tuple(noisy),
            one_to_many=tuple(many),
            dense=self.dense_head(memory, pyramid) if dense else None,
            every_token=self.selection.every_token(memory, pyramid) if every_token else None,
            dense_shapes=pyramid.shapes,
            dense_mask=pyramid.mask,
        )

    @torch.inference_mode()
    def predict(
        self,
        photo: image.Photo,
        threshold: float | None = None,
        trace: bool | Literal["light"] = False,
        cache: StepCache | None = None,
    ) -> Detections:
        """Find objects in one photo.

        Args:
            photo: a path, encoded bytes, a file object, a PIL image, an array or a tensor; see `litedetr.image.open_photo`.
            threshold: lowest score to keep, 0 to 1; ``config.threshold`` if None.
            trace: record every attention step (`Detections.trace`). "light": keep the tokens alone and make the rest again when
                it is read, bit by bit the same: a seventh of the memory, as long as this detector stays as it is.
            cache: of the steps that light traces made last, where several should share one (`litedetr.replay.step_cache`).

        Raises:
            litedetr.image.PhotoError: the picture is broken, empty or too large.
            ValueError: the threshold is no score.
        """
        opened = image.open_small(photo)
        pixels, _, geometry = self.prepare(opened)  # one photo is never padded
        record = Trace(geometry=geometry, replay=self.replay(cache) if trace == "light" else None) if trace else None
        output = self.infer(pixels, record)
        return replace(self.detections(output, [geometry], threshold, record)[0], photo=opened.pixels)

    def replay(self, cache: StepCache | None = None) -> Replay | None:
        """What makes a light trace's steps again; None where they would not be those of the run, so that it must keep them."""
        preliminary = ops.in_preparation()  # the run has the reference, and later there would be the kernel
        if preliminary or self.neck.level_embed.dtype != torch.float32 or torch.is_autocast_enabled(self.device.type):
            return None
        return Replay(self.encoder, self.decoder, self.neck.layouts, **({} if cache is None else {"cache": cache}))

    @torch.inference_mode()
    def predict_batch(self, photos: Iterable[image.Photo], threshold: float | None = None) -> list[Detections]:
        """`predict` for many photos. Those that have one size in the network run together, so that results do not depend on the
        company a photo keeps."""
        return self.predict_prepared([self.prepare(image.open_small(photo)) for photo in photos], threshold)

    @torch.inference_mode()
    def predict_prepared(
        self, prepared: Sequence[Prepared], threshold: float | None = None, batch: int = BATCH
    ) -> list[Detections]:
        """`predict_batch` for what `prepare` gave, which runs no model and may be done in threads; `batch` photos at once."""
        by_geometry: dict[tuple, list[int]] = {}
        for index, (_, _, geometry) in enumerate(prepared):
            by_geometry.setdefault((geometry.resized, geometry.padded), []).append(index)
        results: dict[int, Detections] = {}
        for indices in by_geometry.values():
            for start in range(0, len(indices), batch):
                chosen = indices[start : start + batch]
                output = self.infer(torch.cat([prepared[i][0] for i in chosen]))
                found = self.detections(output, [prepared[i][2] for i in chosen], threshold)
                results.update(zip(chosen, found, strict=True))
        return [results[index] for index in range(len(prepared))]

    def infer(self, pixels: Tensor, trace: Trace | None = None) -> DetectorOutput:
        """`forward` on the device and in the precision of the weights; a model in half precision keeps its places in float32."""
        dtype = self.neck.level_embed.dtype
        half = dtype in (torch.float16, torch.bfloat16)
        with torch.autocast(self.device.type, dtype) if half else nullcontext():
            return self(pixels.to(self.device, dtype), trace=trace)

    def prepare(self, photo: np.ndarray | image.Opened) -> Prepared:
        """(H, W, 3) uint8 RGB -> pixels (1, 3, h, w), mask (1, h, w), geometry, as the config asks for."""
        c = self.config
        pixels, geometry = image.prepare(photo, c.short_side, c.long_side, c.size_divisor, c.pixel_mean, c.pixel_std)
        return torch.from_numpy(pixels), torch.zeros(1, *geometry.padded, dtype=torch.bool), geometry

    def detections(
        self,
        output: DetectorOutput,
        geometries: list[image.PhotoGeometry],
        threshold: float | None = None,
        trace: Trace | None = None,
    ) -> list[Detections]:
        """Forward output -> one `Detections` per photo, in the photo's pixels."""
        logits, boxes = (tensor.float().cpu().numpy() for tensor in (output.logits, output.boxes))
        return [
            Detections.from_outputs(logits[index], boxes[index], geometry.photo, self.config, threshold, trace)
            for index, geometry in enumerate(geometries)
        ]


def _put_before(denoising: DenoisingQueries | None, selected: Selection) -> tuple[Tensor, Tensor, Tensor | None]:
    """Contents, references and attention mask of all queries, the denoising ones first; a small picture has fewer tokens than
    the model has queries, and then the mask's last rows and columns are nobody's."""
    if denoising is None:
        return selected.content, selected.references, selected.attention_mask
    count = denoising.content.shape[1] + selected.content.shape[1]
    return (
        torch.cat((denoising.content.to(selected.content.dtype), selected.content), dim=1),
        torch.cat((denoising.reference_points.to(selected.references.dtype), selected.references), dim=1),
        denoising.attention_mask[:count, :count],
    )


def _record(
    trace: Trace,
    selected: Selection,
    start: Tensor,
    layers: list[LayerOutput],
    proposals: LayerOutput | None,
) -> None:
    """What the tokens proposed, and what the queries were at first and after each layer; a point is a box of no size."""
    if proposals is not None:
        trace.proposal_logits, trace.proposal_boxes = proposals.logits[0].detach().cpu(), proposals.boxes[0].detach().cpu()
    trace.selected_tokens = None if selected.tokens is None else selected.tokens[0].cpu()
    start = functional.pad(start[0], (0, 4 - start.shape[-1]))
    trace.boxes = torch.stack([start, *(layer.boxes[0] for layer in layers)]).detach().cpu()
    trace.logits = torch.stack([layer.logits[0] for layer in layers]).detach().cpu()


def _split(layers: list[LayerOutput], count: int) -> tuple[list[LayerOutput], list[LayerOutput]]:
    """Every layer's first `count` queries, and the rest."""
    if count == 0:
        return [], layers
    first = [LayerOutput(layer.logits[:, :count], layer.boxes[:, :count]) for layer in layers]
    rest = [LayerOutput(layer.logits[:, count:], layer.boxes[:, count:]) for layer in layers]
    return first, rest
