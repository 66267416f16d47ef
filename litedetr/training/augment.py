"""Random changes of a picture together with its boxes: pure functions of (sample, …, rng).

Boxes are ``xyxy`` in pixels, x to the right and y down, a box's edges between pixels: the picture spans (0, 0) to
(width, height). Every random number comes from the ``numpy.random.Generator`` given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

Window = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """image (H, W, 3) uint8 RGB; boxes (n, 4) float32 ``xyxy`` pixels; labels (n,) int64."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class AugmentSettings:
    """How often and how strongly; all zeros (`NONE`) only resizes.

    crop: probability of a random window, whose sides are at least ``crop_min`` of the picture's; focus: how often the
    window is put around an object, every class present being as likely (so that people do not dominate);
    mosaic, zoom_out: probabilities; mixup: of a second picture shining through; pasted: largest number of objects put in
    from other pictures, every class being as likely; colour: strength, 1 = ±40 %
    brightness and contrast, ±50 % saturation, ±6 degrees of hue; visible: a box stays if this part of it does.
    """

    flip: float = 0.5
    crop: float = 0.6
    crop_min: float = 0.4
    focus: float = 0.5
    mosaic: float = 0.15
    zoom_out: float = 0.1
    zoom_out_max: float = 2.0
    mixup: float = 0.0
    pasted: int = 0
    colour: float = 0.6
    visible: float = 0.35
    min_side: float = 2.0

    def mild(self) -> AugmentSettings:
        """Without what makes pictures that no camera would take: mosaic, mixup, pasted objects."""
        return replace(self, mosaic=0.0, mixup=0.0, pasted=0)


NONE = AugmentSettings(flip=0, crop=0, focus=0, mosaic=0, zoom_out=0, colour=0, visible=0, min_side=0)


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = sample.size[0] - sample.boxes[:, [2, 0]]
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), boxes, sample.labels)


def crop(sample: Sample, window: Sequence[float], size: tuple[int, int], settings: AugmentSettings = NONE) -> Sample:
    """The window (left, top, right, bottom), put on whole pixels, resized to ``size`` = (width, height).

    Boxes are cut at its edges; those of which less than ``settings.visible`` remains, or less than
    ``settings.min_side`` pixels, are left out.
    """
    width, height = sample.size
    left, top = (max(round(v), 0) for v in window[:2])
    right, bottom = min(round(window[2]), width), min(round(window[3]), height)
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    part = sample.image[top:bottom, left:right]
    halves = size[0] * size[1] < 0.4 * (right - left) * (bottom - top)  # averaging is slow, and needed only then
    image = cv2.resize(part, size, interpolation=cv2.INTER_AREA if halves else cv2.INTER_LINEAR)
    ratio = np.array([size[0] / (right - left), size[1] / (bottom - top)] * 2, dtype=np.float32)
    moved = (sample.boxes - np.array([left, top, left, top], dtype=np.float32)) * ratio
    return _clip(Sample(image, moved, sample.labels), settings)


def _clip(sample: Sample, settings: AugmentSettings) -> Sample:
    """Cut boxes at the picture's edges and leave out those that are mostly outside."""
    width, height = sample.size
    cut = np.clip(sample.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    sides, full = cut[:, 2:] - cut[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]
    kept = sides.prod(1) > settings.visible * full.prod(1)
    kept &= (sides > 0).all(1) & (sides >= np.minimum(settings.min_side, full)).all(1)
    return Sample(sample.image, cut[kept], sample.labels[kept])


def random_window(sample: Sample, rng: np.random.Generator, settings: AugmentSettings) -> Window:
    """A part of the picture that holds at least one object's centre, if the picture has objects."""
    width, height = sample.size
    for _ in range(8):
        w, h = (np.array([width, height]) * rng.uniform(settings.crop_min, 1.0, size=2)).tolist()
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        if not len(sample.boxes):
            return left, top, left + w, top + h
        if rng.random() < settings.focus:
            chosen = rng.choice(np.unique(sample.labels))
            box = sample.boxes[rng.choice(np.flatnonzero(sample.labels == chosen))]
            w, h = min(max(w, (box[2] - box[0]) * 1.1), width), min(max(h, (box[3] - box[1]) * 1.1), height)
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            left = float(np.clip(x - w * rng.uniform(0.3, 0.7), 0, width - w))
            top = float(np.clip(y - h * rng.uniform(0.3, 0.7), 0, height - h))
        x, y = (sample.boxes[:, 0] + sample.boxes[:, 2]) / 2, (sample.boxes[:, 1] + sample.boxes[:, 3]) / 2
        if ((x > left) & (x < left + w) & (y > top) & (y < top + h)).any():
            return left, top, left + w, top + h
    return 0.0, 0.0, float(width), float(height)


def towards_shape(window: Window, size: tuple[int, int], canvas: tuple[int, int]) -> Window:
    """The window made as wide or tall as ``canvas`` is by shape, as far as the picture of ``size`` = (width, height) allows.

    What shape is still missing is stretched: a picture on a canvas is never padded, since padding shifts the coordinates of
    coarse scales.
    """
    left, top, right, bottom = window
    wanted = (bottom - top) * canvas[0] / canvas[1]
    if wanted > right - left:
        left, right = _grown(left, right, min(wanted, size[0]), size[0])
    else:
        top, bottom = _grown(top, bottom, min((right - left) * canvas[1] / canvas[0], size[1]), size[1])
    return left, top, right, bottom


def _grown(low: float, high: float, length: float, limit: float) -> tuple[float, float]:
    """An interval grown around its middle to ``length``, inside 0..``limit``."""
    low = min(max((low + high - length) / 2, 0.0), limit - length)
    return low, low + length


def fit(size: tuple[float, float], canvas: tuple[int, int], stretch: float = 1.0) -> tuple[int, int]:
    """The largest (width, height) of ``size``'s shape inside ``canvas``; the shorter way may be stretched."""
    across, down = canvas[0] / size[0], canvas[1] / size[1]
    scale = min(across, down)
    width, height = size[0] * min(across, scale * stretch), size[1] * min(down, scale * stretch)
    return max(min(round(width), canvas[0]), 1), max(min(round(height), canvas[1]), 1)


def paste(samples: Sequence[tuple[Sample, tuple[int, int]]], size: tuple[int, int], fill: int = 114) -> Sample:
    """Pictures put on a grey canvas of ``size`` = (width, height), each with its left top corner."""
    image = np.full((size[1], size[0], 3), fill, dtype=np.uint8)
    boxes, labels = [], []
    for sample, (left, top) in samples:
        width, height = sample.size
        image[top : top + height, left : left + width] = sample.image
        boxes.append(sample.boxes + np.array([left, top, left, top], dtype=np.float32))
        labels.append(sample.labels)
    return Sample(image, np.concatenate(boxes), np.concatenate(labels))


def zoom_out(sample: Sample, canvas: tuple[int, int], rng: np.random.Generator, settings: AugmentSettings = NONE) -> Sample:
    """The whole picture, smaller, somewhere on a grey canvas."""
    factor = rng.uniform(1.0, settings.zoom_out_max)
    size = fit(sample.size, (max(int(canvas[0] / factor), 1), max(int(canvas[1] / factor), 1)))
    small = crop(sample, (0, 0, *sample.size), size, settings)
    corner = (int(rng.integers(0, canvas[0] - size[0] + 1)), int(rng.integers(0, canvas[1] - size[1] + 1)))
    return paste([(small, corner)], canvas)


def mosaic(
    samples: Sequence[Sample], canvas: tuple[int, int], rng: np.random.Generator, settings: AugmentSettings = NONE
) -> Sample:
    """Four pictures, one a quarter, around a random centre (YOLOv4, Bochkovskiy et al. 2020)."""
    x, y = (int(side * rng.uniform(0.35, 0.65)) for side in canvas)
    quarters = ((0, 0, x, y), (x, 0, canvas[0], y), (0, y, x, canvas[1]), (x, y, *canvas))
    parts = []
    for sample, (left, top, right, bottom) in zip(samples, quarters, strict=True):
        window = random_window(sample, rng, replace(settings, crop_min=max(settings.crop_min, 0.5)))
        size = fit((window[2] - window[0], window[3] - window[1]), (right - left, bottom - top), stretch=1.4)
        parts.append((crop(sample, window, size, settings), (left, top)))
    return paste(parts, canvas)


def mixup(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """Two pictures of one size shining through each other, with the boxes of both (Zhang et al. 2018)."""
    share = rng.uniform(0.4, 0.6)
    image = cv2.addWeighted(sample.image, share, other.image, 1 - share, 0)
    return Sample(image, np.concatenate((sample.boxes, other.boxes)), np.concatenate((sample.labels, other.labels)))


def paste_object(sample: Sample, other: Sample, box: int, rng: np.random.Generator, settings: AugmentSettings = NONE) -> Sample:
    """Box number ``box`` of another picture, with some of what is around it, put somewhere into this one.

    What surrounds an object comes along, up to half of its size on each side, so that the edge of the patch does not tell where
    its box is; boxes that lie in it come too, and those of which it leaves less than ``settings.visible`` go.
    """
    left, top, right, bottom = other.boxes[box].tolist()
    margins = rng.uniform(0.05, 0.5, size=4) * np.array([right - left, bottom - top] * 2)
    window = (left - margins[0], top - margins[1], right + margins[2], bottom + margins[3])
    window = (max(window[0], 0.0), max(window[1], 0.0), min(window[2], other.size[0]), min(window[3], other.size[1]))
    width, height = sample.size
    wanted = min(width, height) * math.exp(rng.uniform(math.log(0.15), math.log(0.7)))
    across, down = window[2] - window[0], window[3] - window[1]
    scale = min(wanted / max(right - left, bottom - top), 2.0, 0.9 * width / across, 0.9 * height / down)
    size = max(round(across * scale), 2), max(round(down * scale), 2)
    patch = crop(other, window, size, settings)
    if rng.random() < settings.flip:
        patch = flip(patch)
    x, y = int(rng.integers(0, width - size[0] + 1)), int(rng.integers(0, height - size[1] + 1))
    image = sample.image.copy()
    image[y : y + size[1], x : x + size[0]] = patch.image
    area = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(1)
    low, high = np.maximum(sample.boxes[:, :2], (x, y)), np.minimum(sample.boxes[:, 2:], (x + size[0], y + size[1]))
    kept = area - np.clip(high - low, 0, None).prod(1) > settings.visible * area
    moved = patch.boxes + np.array([x, y, x, y], dtype=np.float32)
    return Sample(image, np.concatenate((sample.boxes[kept], moved)), np.concatenate((sample.labels[kept], patch.labels)))


def colour(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, contrast, saturation and hue of an RGB picture, changed a little."""
    brightness, contrast = rng.uniform(-0.4, 0.4, size=2) * strength
    table = np.arange(256, dtype=np.float32)
    mean = float(image[::8, ::8].mean()) if image.size else 0.0
    table = ((table - mean) * (1 + contrast) + mean) * (1 + brightness)
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        amount = 1 + rng.uniform(-0.5, 0.5) * strength
        image = cv2.addWeighted(image, amount, grey, 1 - amount, 0)
    if rng.random() < 0.3:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        shift = round(rng.uniform(-3, 3) * strength)  # OpenCV's hue has two degrees a step
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + shift) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image


def augment(
    sample: Sample,
    canvas: tuple[int, int],
    rng: np.random.Generator,
    settings: AugmentSettings,
    others: Callable[[], Sequence[Sample]] | None = None,
    objects: Callable[[], tuple[Sample, int]] | None = None,
) -> Sample:
    """One training picture of the size ``canvas`` = (width, height).

    ``others`` gives four more pictures: three for a mosaic, and the one that shines through; ``objects`` a picture and
    which of its boxes to paste; without them there is none. The result fills the canvas.
    """
    kind = rng.random()
    if others is not None and kind < settings.mosaic:
        result = mosaic([sample, *others()[:3]], canvas, rng, settings)
    elif settings.mosaic <= kind < settings.mosaic + settings.zoom_out:
        result = zoom_out(sample, canvas, rng, settings)
    else:
        result = _cropped(sample, canvas, rng, settings)
    if others is not None and settings.mixup > 0 and rng.random() < settings.mixup:
        result = mixup(result, _cropped(others()[3], canvas, rng, settings), rng)
    if objects is not None and settings.pasted > 0:
        for _ in range(int(rng.integers(0, settings.pasted + 1))):
            result = paste_object(result, *objects(), rng, settings)
    if rng.random() < settings.flip:
        result = flip(result)
    if settings.colour > 0:
        result = replace(result, image=colour(result.image, rng, settings.colour))
    return result


def _cropped(sample: Sample, canvas: tuple[int, int], rng: np.random.Generator, settings: AugmentSettings) -> Sample:
    """The picture, or as often as the settings say a part of it, on the canvas."""
    window: Window = (0.0, 0.0, *map(float, sample.size))
    if rng.random() < settings.crop:
        window = random_window(sample, rng, settings)
    return crop(sample, towards_shape(window, sample.size, canvas), canvas, settings)
