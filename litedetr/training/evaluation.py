"""COCO's average precision of a detector on a COCO-format set (pycocotools)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from tqdm import tqdm

from litedetr.batch.processes import ALONE, Processes
from litedetr.batch.resume import fingerprint
from litedetr.detections import class_nms, top_k
from litedetr.image import resize, resized_size
from litedetr.training.augment import Sample
from litedetr.training.calibration import Calibration, calibrate
from litedetr.training.classes import category_ids
from litedetr.training.confusion import confusion, confusion_svg, precision_svg
from litedetr.training.data import DataError, PhotoSet, collate
from litedetr.training.precision import autocast, normalise
from litedetr.training.results import Found, ResultsFolder

log = logging.getLogger(__name__)
FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """COCO's twelve figures (0..1; -1 where nothing of that kind exists) and two per class.

    figures: by the names in `FIGURES`; per_class: class name -> {"AP": …, "AP50": …, "AR": …}; person_ap50: AP50 of the class
    called person, None without one; images: how many were measured; seconds: the detector's time; calibration: what the
    scores mean; per_group: the classes' means over the file's supercategories, {} where it names none; curves: overlap ->
    precision at 101 recalls; confusion: class names, and `litedetr.training.confusion` at the threshold of best F1.
    """

    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    person_ap50: float | None
    images: int
    seconds: float
    calibration: Calibration | None = None
    per_group: dict[str, dict[str, float]] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    confusion: tuple[list[str], list[list[int]]] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "figures": self.figures,
            "per_class": self.per_class,
            "person_ap50": self.person_ap50,
            "images": self.images,
            "seconds": round(self.seconds, 2),
            "per_group": self.per_group,
            "curves": self.curves,
            "confusion": self.confusion,
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }

    def summary(self) -> str:
        """One line, in per cent."""
        person = "" if self.person_ap50 is None else f", person AP50 {100 * self.person_ap50:.1f}"
        ap, ap50, ap75 = (100 * self.figures[name] for name in FIGURES[:3])
        return f"AP {ap:.1f}, AP50 {ap50:.1f}, AP75 {ap75:.1f}{person} ({self.images} pictures, {self.seconds:.0f} s)"

    def table(self) -> str:
        """The twelve figures in per cent, one a line ("-" where nothing of that kind exists), and how many pictures."""
        shown = {name: "-" if value < 0 else f"{100 * value:.1f}" for name, value in self.figures.items()}
        lines = [f"{name:10} {value:>5}" for name, value in shown.items()]
        lines += [f"{name:14} AP50 {100 * group['AP50']:5.1f}" for name, group in self.per_group.items()]
        lines += [] if self.calibration is None else [self.calibration.table()]
        width = max([len(name) for name in self.per_class], default=0)
        lines += [
            f"{name:{width}}  AP {100 * row['AP']:5.1f}  AP50 {100 * row['AP50']:5.1f}  AR {100 * row['AR']:5.1f}"
            for name, row in self.per_class.items()
        ]
        return "\n".join([*lines, f"{self.images} pictures, {self.seconds:.0f} s"])


def evaluate(
    detector: nn.Module,
    annotations: Path | str,
    images: Path | str,
    *,
    size: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    precision: str = "f32",
    device: torch.device | str | None = None,
    photos: PhotoSet | None = None,
    progress: bool = True,
    results: Path | str | None = None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Average precision of ``detector`` on the pictures of a COCO-format file; crowd boxes are ignore regions.

    Pictures are resized and padded as `Detector.predict` does it. size: their long side (default: the detector's own
    ``config.short_side`` and ``config.long_side``); of each ``config.top_k`` detections count, as the detector's
    authors measured it (DINO 300, Deformable DETR 100). limit: measure the first pictures only; precision: "f32", "bf16" or
    "auto"; photos: the same set, already open (its cache is reused).
    results: a folder that detections are written to as they are made; pictures that it has already are not run again.
    processes: each runs its share of the pictures; the first one measures, all return the same.
    Which class is which category: see `litedetr.training.classes.category_ids`; others count neither for nor against.

    Raises:
        DataError: there is nothing to find on the pictures.
    """
    fresh = photos is None
    photos = photos or PhotoSet(annotations, images, cache_bytes=0)
    ids, notes = category_ids(detector.config, photos)
    for note in notes if fresh else ():
        log.warning(note)
    device = torch.device(device) if device is not None else next(detector.parameters()).device
    sides = (size, size) if size else (detector.config.short_side, detector.config.long_side)
    folder = None
    if results is not None:
        about = {"sides": list(sides), "top_k": detector.config.top_k, "precision": precision}
        folder = ResultsFolder(results, {"model": fingerprint(detector), "set": _digest(photos.content), **about}, processes)
    known = folder.known if folder else {}
    chosen = range(len(photos))[:limit]
    content = _of_classes(photos, chosen, ids)
    batches = _batches(photos, chosen, sides, detector.config.size_divisor, batch_size)[processes.rank :: processes.count]
    training = detector.training
    detector.eval()
    started = time.perf_counter()
    found: Found = {}
    try:
        for batch, canvas in tqdm(batches, desc="evaluating", unit="batch", disable=not (progress and processes.first)):
            rest = [index for index in batch if photos.photos[index].id not in known]
            if rest:
                new = _detect(detector, photos, rest, canvas, ids, precision, device)
                found |= new
                if folder:
                    folder.append(new)
    finally:
        detector.train(training)
        if folder:
            folder.close()
    seconds = time.perf_counter() - started
    everything = known | {image: items for part in processes.gather(found) for image, items in part.items()}
    image_ids = [photos.photos[index].id for index in chosen]
    listed = [entry for image in image_ids for entry in everything[image]]
    return processes.from_first(lambda: measure(content, listed, image_ids, seconds))


def write_charts(result: Evaluation, folder: Path) -> None:
    """precision-recall.svg and confusion.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "precision-recall.svg").write_text(precision_svg(result.curves), encoding="utf-8")
    if result.confusion is not None:
        names, counts = result.confusion
        (folder / "confusion.svg").write_text(confusion_svg(np.array(counts), names), encoding="utf-8")


def coco_paths(folder: Path | str, split: str = "val") -> tuple[Path, Path]:
    """The annotation file and the picture folder of COCO's own layout, 2017.

    Raises:
        DataError: one of them is not there.
    """
    annotations = Path(folder) / "annotations" / f"instances_{split}2017.json"
    images = Path(folder) / f"{split}2017"
    absent = [str(path) for path, there in ((annotations, annotations.is_file()), (images, images.is_dir())) if not there]
    if absent:
        raise DataError(
            f"expected COCO's own layout in {folder}, {' and '.join(absent)} not found; unpack {split}2017.zip and "
            "annotations_trainval2017.zip of https://cocodataset.org there"
        )
    return annotations, images


def _digest(content: dict[str, Any]) -> str:
    """Sixteen digits that change with a set's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _of_classes(photos: PhotoSet, chosen: Sequence[int], ids: Sequence[int | None]) -> dict[str, Any]:
    """The set's content without the categories that are not among ``ids``.

    Raises:
        DataError: no object is left in the pictures ``chosen``: there is nothing to find, and no figure.
    """
    categories, annotations = (
        [entry for entry in photos.content[key] if entry[name] in ids]
        for key, name in (("categories", "id"), ("annotations", "category_id"))
    )
    images = {photos.photos[index].id for index in chosen}
    if not any(entry["image_id"] in images and not entry["iscrowd"] for entry in annotations):
        raise DataError(
            f"expected a box of the detector's classes on the {len(images)} pictures to measure of {photos.annotations}, got "
            "none; measure on more pictures, or on a set with objects"
        )
    return {**photos.content, "categories": categories, "annotations": annotations}


def _batches(
    photos: PhotoSet, chosen: Sequence[int], sides: tuple[int, int], divisor: int, batch_size: int
) -> list[tuple[list[int], tuple[int, int]]]:
    """Pictures that share a canvas (width, height), a few at a time: as in `predict`, none is padded for another's sake."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index in chosen:
        height, width = resized_size((photos.photos[index].height, photos.photos[index].width), *sides, divisor)
        groups.setdefault((width, height), []).append(index)
    return [
        (indices[start : start + batch_size], canvas)
        for canvas, indices in sorted(groups.items())
        for start in range(0, len(indices), batch_size)
    ]


def _sample(photos: PhotoSet, index: int, canvas: tuple[int, int]) -> Sample:
    """A picture resized as for `predict`, without its boxes."""
    small = resize(photos.sample(index).image, canvas[::-1])
    return Sample(small, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


@torch.inference_mode()
def _detect(
    detector: nn.Module,
    photos: PhotoSet,
    batch: list[int],
    canvas: tuple[int, int],
    ids: Sequence[int | None],
    precision: str,
    device: torch.device,
) -> Found:
    """COCO-format results of a few pictures."""
    loaded = collate([_sample(photos, index, canvas) for index in batch], canvas)
    mask = loaded.mask.to(device)
    with autocast(device, precision):
        output = detector(normalise(loaded.images.to(device), mask, detector.config), mask)
    logits, all_boxes = (tensor.float().cpu().numpy() for tensor in (output.logits, output.boxes))
    results: Found = {}
    for place, index in enumerate(batch):
        photo = photos.photos[index]
        size = (photo.height, photo.width)
        scores, labels, boxes, _ = top_k(logits[place], all_boxes[place], size, detector.config.top_k)
        kept = class_nms(boxes, labels, detector.config.nms_iou)
        results[photo.id] = [
            {
                "image_id": photo.id,
                "category_id": ids[label],
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }
            for score, label, (left, top, right, bottom) in zip(*(t[kept].tolist() for t in (scores, labels, boxes)), strict=True)
            if ids[label] is not None
        ]
    return results


def measure(content: dict[str, Any], results: list[dict[str, Any]], image_ids: Sequence[int], seconds: float = 0.0) -> Evaluation:
    """The figures of COCO-format ``results`` against a COCO-format file's ``content``, on the pictures given."""
    coco = matched(content, results, image_ids)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        coco.accumulate()
        coco.summarize()
    precision = coco.eval["precision"]  # (IoU thresholds, recalls, classes, areas, detections)
    names = {category["id"]: category["name"] for category in content["categories"]}
    per_class = {}
    for k, category in enumerate(coco.params.catIds):
        every = precision[:, :, k, 0, -1]
        if (every > -1).any():
            recall = coco.eval["recall"][:, k, 0, -1]
            per_class[names[category]] = {
                "AP": float(every.mean()), "AP50": float(every[0].mean()), "AR": float(recall.mean()),
            }  # fmt: skip
    calibration = calibrate(content, results, image_ids)
    known = (precision[0, :, :, 0, -1] > -1).any(0)  # classes of which there is an object
    means = {index: precision[index][:, known, 0, -1].mean(1) for index in (0, 5, 8) if known.any()}
    curves = {f"{0.5 + 0.05 * index:.2f}": values.round(4).tolist() for index, values in means.items()}
    return Evaluation(
        figures={name: float(value) for name, value in zip(FIGURES, coco.stats, strict=True)},
        per_class=per_class,
        person_ap50=per_class.get("person", {}).get("AP50"),
        images=len(image_ids),
        seconds=seconds,
        calibration=calibration,
        per_group=_groups(content, per_class),
        curves=curves,
        confusion=(list(names.values()), confusion(content, results, image_ids, calibration.threshold).tolist()),
    )


def matched(content: dict[str, Any], results: list[dict[str, Any]], image_ids: Sequence[int]) -> COCOeval:
    """pycocotools' evaluation of the pictures given, after every detection was matched with an object or none."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO()
        truth.dataset = _complete(content)
        truth.createIndex()
        coco = COCOeval(truth, truth.loadRes(results) if results else _empty(content), "bbox")
        coco.params.imgIds = list(image_ids)
        coco.evaluate()
    return coco


def _groups(content: dict[str, Any], per_class: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Means over the classes of each supercategory, in the file's order."""
    members: dict[str, list[dict[str, float]]] = {}
    for category in content["categories"]:
        if category.get("supercategory") and category["name"] in per_class:
            members.setdefault(category["supercategory"], []).append(per_class[category["name"]])
    return {name: {key: float(np.mean([m[key] for m in items])) for key in ("AP", "AP50")} for name, items in members.items()}


def _complete(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the fields pycocotools insists on: area, iscrowd, id."""
    annotations = [
        {"area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0, **entry, "id": number}
        for number, entry in enumerate(content["annotations"], start=1)
    ]
    return {**content, "annotations": annotations}


def _empty(content: dict[str, Any]) -> COCO:
    """Results without a single detection."""
    results = COCO()
    results.dataset = {"images": content["images"], "categories": content["categories"], "annotations": []}
    results.createIndex()
    return results
