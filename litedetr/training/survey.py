"""A look at a set before training on it: what is in it, what is odd about it, and how its pictures reach the detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from litedetr.detections import corners
from litedetr.draw import COLOURS, INKS, draw_boxes
from litedetr.lettering import written
from litedetr.training.annotations import few
from litedetr.training.augment import AugmentSettings, Sample
from litedetr.training.classes import same_names
from litedetr.training.data import BatchStream, PhotoSet

SMALL, MEDIUM = 32**2, 96**2
"""COCO's areas, in square pixels, from which on an object is medium and large."""
PICTURES, LETTERS = 16, 12
CLASSES = 40
"""Rows of the table of classes, at most."""


def survey(splits: dict[str, PhotoSet], layouts: dict[str, str], known: Sequence[str] = ()) -> str:
    """What there is, for reading.

    Args:
        splits, layouts: the open set and the layout of each split.
        known: names of the classes that the trained start knows.
    """
    lines = []
    for split, photos in splits.items():
        boxes = sum(len(photo.boxes) for photo in photos.photos)
        empty = sum(not len(photo.boxes) for photo in photos.photos)
        crowds = photos.skipped.get("crowd", 0)
        left_out = sum(photos.skipped.values()) - crowds
        sides = np.array([(photo.width, photo.height) for photo in photos.photos])
        width, height = np.median(sides, axis=0).astype(int)
        lines.append(
            f"{split}: {len(photos):,} pictures ({layouts[split]}), about {width} x {height}; "
            f"{boxes:,} boxes, {crowds:,} crowds, {left_out:,} left out; {empty:,} pictures without a box"
        )
    if "val" not in splits:
        lines.append("val: none, so no AP is measured: put some of the pictures aside")
    train = splits.get("train") or next(iter(splits.values()))
    lines += ["", *_classes(train, splits.get("val"))]
    unused = [name for name, count in zip(train.names, _counts(train)[:, 0], strict=True) if not count]
    if unused:
        lines.append(f"never used: {few(unused)} ({len(unused)} classes): they can be left out")
    if known:
        both = [train.names[place] for place in same_names(train.names, known)]
        which = f" ({few(both)})" if both else ""
        lines.append(f"classes that the start knows by name: {len(both)} of {len(train.names)}{which}")
    return "\n".join(lines)


def _classes(train: PhotoSet, val: PhotoSet | None) -> list[str]:
    """A row per class: boxes, by size, and pictures; the most frequent first."""
    counts = _counts(train)
    of_val = dict(zip(val.names, _counts(val)[:, 0].tolist(), strict=True)) if val else {}
    order = np.argsort(-counts[:, 0], kind="stable")[:CLASSES]
    width = max(5, *(len(train.names[index]) for index in order))
    lines = [f"{'class':{width}}  boxes  small  medium  large  pictures  in val"]
    for index in order:
        boxes, small, medium, large, pictures = counts[index].tolist()
        name = train.names[index]
        lines.append(f"{name:{width}}  {boxes:5}  {small:5}  {medium:6}  {large:5}  {pictures:8}  {of_val.get(name, '-'):>6}")
    return lines + ([f"… and {len(counts) - CLASSES} more"] if len(counts) > CLASSES else [])


def _counts(photos: PhotoSet) -> np.ndarray:
    """(K, 5): boxes, small, medium, large ones, pictures with one."""
    counts = np.zeros((len(photos.names), 5), int)
    for photo in photos.photos:
        areas = (photo.boxes[:, 2:] - photo.boxes[:, :2]).prod(1)
        sizes = (areas >= 0, areas < SMALL, (areas >= SMALL) & (areas < MEDIUM), areas >= MEDIUM)
        for column, chosen in enumerate(sizes):
            np.add.at(counts[:, column], photo.labels[chosen], 1)
        counts[np.unique(photo.labels), 4] += 1
    return counts


def sheet(photos: PhotoSet, file: Path, settings: AugmentSettings, size: int = 320, seed: int = 0) -> None:
    """A PNG of 16 pictures with their boxes, changed at random as the training changes them."""
    stream = BatchStream(photos, settings, seed)
    try:
        tiles = []
        while len(tiles) < PICTURES:
            stream.request(size, 4)
            batch = stream.take()
            starts = np.cumsum([0, *batch.targets.counts])
            for row, image in enumerate(batch.images.numpy()):
                part = slice(starts[row], starts[row + 1])
                height, width = image.shape[:2]  # which the picture fills
                boxes = corners(batch.targets.boxes[part].numpy()) * [width, height, width, height]
                tiles.append(_tile(Sample(image, boxes, batch.targets.labels[part].numpy()), photos.names, size))
    finally:
        stream.close()
    rows = [np.concatenate(tiles[start : start + 4], axis=1) for start in range(0, PICTURES, 4)]
    Image.fromarray(np.concatenate(rows)).save(file)


def _tile(sample: Sample, names: Sequence[str], size: int) -> np.ndarray:
    """A square with the picture in its middle, boxes and names over it."""
    picture = Image.fromarray(np.ascontiguousarray(sample.image))
    labels = sample.labels.tolist()
    texts = [written(names[label], f"class {label}", LETTERS) for label in labels]
    colours, inks = ([of[label % len(of)] for label in labels] for of in (COLOURS, INKS))
    draw_boxes(picture, sample.boxes.tolist(), texts, colours, inks, 2, LETTERS)
    height, width = sample.image.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    border = (top, size - height - top, left, size - width - left)
    return cv2.copyMakeBorder(np.asarray(picture), *border, cv2.BORDER_CONSTANT, value=(24, 24, 24))
