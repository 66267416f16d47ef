"""A detector of `transformers` behind the interface of `Detector`: a photo goes in, `Detections` with a `Trace` come out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from litedetr import image
from litedetr.cost import Cost
from litedetr.detections import Detections
from litedetr.guests.accelerate import accelerate
from litedetr.guests.calls import Site, find
from litedetr.guests.heads import every_layer
from litedetr.guests.watch import watch
from litedetr.trace import Trace

TITLES = {
    "rt_detr": "RT-DETR",
    "rt_detr_v2": "RT-DETRv2",
    "d_fine": "D-FINE",
    "deimv2": "DEIMv2",
    "rf_detr": "RF-DETR",
    "lw_detr": "LW-DETR",
    "pp_doclayout_v2": "PP-DocLayoutV2",
    "pp_doclayout_v3": "PP-DocLayoutV3",
}
"""The types of `transformers` that find objects of fixed classes in a photo, as boxes; a Deformable DETR becomes a `Detector`
instead. PP-DocLayoutV4 gives quadrilaterals, Mask2Former and OneFormer give masks."""
CUBIC = ("pp_doclayout_v2", "pp_doclayout_v3")
"""Those whose photos are resized as OpenCV does it, with cubic interpolation."""


@dataclass(frozen=True)
class GuestConfig:
    """What is to be known of a model of another code base to show it a photo and to tell what it found.

    Attributes:
        model_type: as in its config.json.
        names: of its classes.
        heads: of its deformable attention.
        layers: of its decoder.
        size: (height, width) that a photo is resized to.
        mean, std: of the channels, in [0, 1].
        top_k: so many of the best (query, class) pairs are kept.
        threshold: lowest score to keep.
    """

    model_type: str
    names: tuple[str, ...]
    heads: int
    layers: int
    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    top_k: int = 300
    threshold: float = 0.5

    @property
    def title(self) -> str:
        return TITLES.get(self.model_type, self.model_type)

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the classes, as they are counted."""
        return tuple(range(len(self.names)))

    @property
    def nms_iou(self) -> None:
        """`transformers` keeps all."""
        return None

    @property
    def short_side(self) -> int:
        return min(self.size)

    @property
    def long_side(self) -> int:
        return max(self.size)

    @property
    def key_aware(self) -> bool:
        """Never: keys are this project's."""
        return False

    @property
    def box_refine(self) -> bool:
        """Whether the boxes that a layer gives are those that the next one begins with."""
        return self.model_type not in ("rf_detr", "lw_detr")


class GuestDetector:
    """A model of `transformers`, run on the kernels where there are any, that is shown photos as a `Detector` is.

    Args:
        model: a ``…ForObjectDetection`` of one of the types in `TITLES`.
        config: what belongs to it.
    """

    def __init__(self, model: nn.Module, config: GuestConfig):
        self.model, self.config = model.eval().requires_grad_(False), config
        self.sites: list[Site] = find(model)
        self._costs: dict[tuple[int, int], Cost] = {}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) of what runs one after the other: all that is before the first deformable attention, and each layer with
        one."""
        layers = [self.model.get_submodule(site.name.rpartition(".")[0]) for site in self.sites]
        return [("backbone", self.model), *((f"decoder {index}", layer) for index, layer in enumerate(layers, start=1))]

    def optimize(self, dtype: str = "float32") -> GuestDetector:
        """Itself, its attention on the kernels where that is possible."""
        try:
            accelerate(self.model)
        except RuntimeError:  # no kernel here, or discrete sampling: it runs as it is
            return self
        return self

    def to(self, device: torch.device | str) -> GuestDetector:
        """Moves the model."""
        self.model.to(device)
        return self

    def prepare(self, photo: np.ndarray | image.Opened) -> tuple[Tensor, Tensor, image.PhotoGeometry]:
        """(H, W, 3) uint8 RGB -> pixels (1, 3, h, w), mask (1, h, w) bool with True = padding, and the geometry, as the model's
        own image processor has it: resized to one size, and normalised."""
        height, width = self.config.size
        opened = image.open_small(photo)
        if self.config.model_type in CUBIC:
            small = cv2.resize(opened.pixels, (width, height), interpolation=cv2.INTER_CUBIC)
        else:
            small = np.array(Image.fromarray(opened.pixels).resize((width, height), Image.Resampling.BILINEAR))
        pixels = torch.from_numpy(small).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.config.mean, self.config.std))
        geometry = image.PhotoGeometry(opened.size, self.config.size, self.config.size)
        return (pixels - mean) / std, torch.zeros(1, height, width, dtype=torch.bool), geometry

    @torch.no_grad()
    def predict(
        self,
        photo: image.Photo,
        threshold: float | None = None,
        trace: bool | Literal["light"] = False,
        cache: object = None,
    ) -> Detections:
        """Find objects in one photo; see `Detector.predict`. A trace has the boxes and the logits after every decoder layer,
        and is whole in any case, because it has few steps: it needs no `cache`.

        Raises:
            litedetr.image.PhotoError: the picture is broken, empty or too large.
        """
        pixels, _, geometry = self.prepare(image.open_small(photo))
        with watch(self.model) if trace else nullcontext() as record, every_layer(self.model) as heads, self._clock() as clock:
            output = self.model(pixel_values=pixels.to(self.device))
        if record is not None:
            record.geometry, record.milliseconds = geometry, clock
            record.logits, record.boxes = heads(output, record)
        return self._detections(output, geometry, threshold, record)

    def predict_batch(self, photos: list[image.Photo], threshold: float | None = None) -> list[Detections]:
        """`predict` for many photos, one after the other."""
        return [self.predict(photo, threshold) for photo in photos]

    def _detections(
        self, output: Any, geometry: image.PhotoGeometry, threshold: float | None, trace: Trace | None
    ) -> Detections:
        """The best of all (query, class) pairs, as `transformers` takes them, and the boxes clipped to the photo."""
        logits, boxes = (output[name][0].float().cpu().numpy() for name in ("logits", "pred_boxes"))
        return Detections.from_outputs(logits, boxes, geometry.photo, self.config, threshold, trace)

    @torch.no_grad()
    def cost(self, size: tuple[int, int]) -> Cost:
        """Multiply-adds for an input of (height, width), counted by PyTorch while the model runs once.

        The decoder's are those of all layers with deformable attention, the backbone's all others. Sampling is not counted, nor
        are the products of self-attention on CPUs.
        """
        if size not in self._costs:
            with FlopCounterMode(display=False) as counter:
                self.model(pixel_values=torch.zeros(1, 3, *size, device=self.device))
            counts, root = counter.get_flop_counts(), type(self.model).__name__
            layers = [self._macs(counts, f"{root}.{site.name.rpartition('.')[0]}") for site in self.sites]
            whole = counter.get_total_flops() / 2e9
            self._costs[size] = Cost(whole - sum(layers), 0.0, 0.0, 0.0, sum(layers), 0.0, (), ())
        return self._costs[size]

    @staticmethod
    def _macs(counts: dict[str, dict[Any, int]], name: str) -> float:
        return sum(counts.get(name, {}).values()) / 2e9

    @contextmanager
    def _clock(self) -> Iterator[dict[str, float]]:
        """Milliseconds of what is before the first layer with deformable attention ("backbone"), and of the rest ("decoder")."""
        spent: dict[str, float] = {}
        marks: list[float] = []
        hook = self.stages[1][1].register_forward_pre_hook(lambda *_: marks.append(time.perf_counter()))
        start = time.perf_counter()
        try:
            yield spent
        finally:
            hook.remove()
        if marks:
            spent |= {"backbone": 1000 * (marks[0] - start), "decoder": 1000 * (time.perf_counter() - marks[0])}
