"""The layouts in which people have photographs with boxes, found by themselves and read into COCO's format.

Known are this project's (``train.json``, ``train/``), COCO's own (``annotations/instances_train2017.json``, ``train2017/``),
Roboflow's COCO export (``train/_annotations.coco.json``), YOLO (``data.yaml``, a ``.txt`` per picture), Pascal VOC
(``Annotations/``, ``ImageSets/Main/``, or ``.xml`` beside the pictures) and Hugging Face's imagefolder
(``train/metadata.jsonl``). The readers are a few lines each; libraries that have them bring another OpenCV or a whole framework.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from litedetr.batch.detect import photo_files
from litedetr.image import PhotoError, photo_size
from litedetr.training.annotations import Annotations, DataError, few, read_annotations, sound

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}
"""What splits are called."""
WANTED = (
    "train.json with train/, annotations/instances_train2017.json with train2017/, train/_annotations.coco.json (Roboflow), "
    "data.yaml (YOLO), Annotations/ with JPEGImages/ (Pascal VOC), or train/metadata.jsonl (imagefolder)"
)


@dataclass(frozen=True)
class Split:
    """One part of a set: what layout it has, how its annotations are read, and the folder that its file names are in."""

    layout: str
    read: Callable[[], Annotations]
    images: Path


def find(folder: Path | str) -> dict[str, Split]:
    """The splits ("train", "val", "test") of a set in any known layout.

    Raises:
        DataError: there is none; the message says what is there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"expected a folder with photographs and their boxes, found none at {folder}; check the path")
    for layout in (_ours, _coco, _roboflow, _yolo, _voc, _imagefolder):
        found = layout(folder)
        if found:
            return found
    there = [path.name + ("/" if path.is_dir() else "") for path in sorted(folder.iterdir())]
    raise DataError(f"expected {WANTED} in {folder}, found no such file but {few(there) or 'nothing'}; give the set's own folder")


def _each(folder: Path, make: Callable[[str], Split | None]) -> dict[str, Split]:
    """Every split under the first of its names for which there is something."""
    found = {split: next(filter(None, map(make, names)), None) for split, names in SPLITS.items()}
    return {split: what for split, what in found.items() if what is not None}


def _file(layout: str, annotations: Path, images: Path) -> Split | None:
    return Split(layout, lambda: read_annotations(annotations), images) if annotations.is_file() else None


def _ours(folder: Path) -> dict[str, Split]:
    return _each(folder, lambda name: _file("COCO format", folder / f"{name}.json", folder / name))


def _coco(folder: Path) -> dict[str, Split]:
    def one(name: str) -> Split | None:
        for stem in (f"{name}2017", f"{name}2014", name):
            annotations = folder / "annotations" / f"instances_{stem}.json"
            if annotations.is_file():
                places = (folder / stem, folder / "images" / stem, folder / "images")
                return _file("COCO", annotations, next((place for place in places if place.is_dir()), places[0]))
        return None

    return _each(folder, one)


def _roboflow(folder: Path) -> dict[str, Split]:
    return _each(folder, lambda name: _file("Roboflow's COCO export", folder / name / "_annotations.coco.json", folder / name))


# ---- YOLO ----


def _yolo(folder: Path) -> dict[str, Split]:
    file = next((path for name in ("data.yaml", "data.yml", "dataset.yaml") if (path := folder / name).is_file()), None)
    if file is None:
        return {}
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        raise DataError(f"expected YAML in {file}, got something else ({str(error).splitlines()[0]}); correct it") from error
    if not isinstance(told, dict) or not isinstance(told.get("names"), list | dict):
        raise DataError(f"expected the classes' names in {file} (names: [cat, dog]), found none; add them")
    names = told["names"] if isinstance(told["names"], dict) else dict(enumerate(told["names"]))
    names = {int(number): str(name) for number, name in names.items()}

    def one(name: str) -> Split | None:
        if not told.get(name):
            return None
        pictures = _yolo_pictures(file, told, told[name])
        return Split("YOLO", lambda: sound(_yolo_content(pictures, names, folder), file), folder)

    return _each(folder, one)


def _yolo_pictures(file: Path, told: dict[str, Any], given: str | list[str]) -> list[Path]:
    """The pictures of a split: folders or lists of them, where the file says or, often rightly, where it lies."""
    found: list[Path] = []
    for item in [given] if isinstance(given, str) else given:
        plain = re.sub(r"^(\.\./|\./)+", "", item)
        tried = [file.parent / str(told.get("path") or "") / item, file.parent / item, file.parent / plain]
        place = next((path for path in tried if path.exists()), None)
        if place is None:
            raise DataError(f"expected the pictures of {file} at {item}, found nothing there; correct the path in it")
        if place.suffix == ".txt":
            lines = place.read_text(encoding="utf-8").split("\n")
            found += [place.parent / line.strip() for line in lines if line.strip()]
        else:
            found += photo_files([place])
    return found


def _yolo_content(pictures: Sequence[Path], names: dict[int, str], root: Path) -> dict[str, Any]:
    def boxes(picture: Path, size: tuple[int, int]) -> Iterator[tuple[int, list[float]]]:
        file = _label_file(picture)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else (), start=1):
            try:
                kind, *values = line.split()
                values = [float(value) for value in values]
                kind = int(float(kind))
            except ValueError:
                kind, values = -1, []
            if not line.strip():
                continue
            if kind not in names or len(values) < 4:
                wanted = f"one of {len(names)} classes and four numbers"
                raise DataError(f"expected {wanted} in line {number} of {file}, got {line[:40]!r}; correct it")
            if len(values) >= 6:  # a polygon
                xs, ys = values[0::2], values[1::2]
                left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
            else:
                x, y, w, h = values[:4]
                left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            yield kind, [left * size[1], top * size[0], (right - left) * size[1], (bottom - top) * size[0]]

    return _content(pictures, root, names, boxes)


def _label_file(picture: Path) -> Path:
    """``…/labels/a.txt`` of ``…/images/a.jpg``, or beside it."""
    parts = list(picture.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


# ---- Pascal VOC ----


def _voc(folder: Path) -> dict[str, Split]:
    tried = (folder / "Annotations", *folder.glob("VOCdevkit/*/Annotations"))
    inner = next((path.parent for path in tried if path.is_dir()), None)

    def one(name: str) -> Split | None:
        if inner is not None:
            listed = inner / "ImageSets" / "Main" / f"{name}.txt"
            files = [inner / "Annotations" / f"{line.split()[0]}.xml" for line in _lines(listed)]
            if not listed.is_file() and name == "train" and not any((inner / "ImageSets" / "Main").glob("*.txt")):
                files = sorted((inner / "Annotations").glob("*.xml"))
            places = (inner / "JPEGImages", inner / "images", inner)
        else:  # as Roboflow exports it
            files, places = sorted((folder / name).glob("*.xml")), (folder / name,)
        if not files:
            return None
        images = next((place for place in places if place.is_dir()), places[0])
        return Split("Pascal VOC", lambda: sound(_voc_content(files), folder / f"{name} (Pascal VOC)"), images)

    return _each(folder, one)


def _voc_content(files: Sequence[Path]) -> dict[str, Any]:
    images, annotations, kinds = [], [], {}
    for number, file in enumerate(files, start=1):
        try:
            tree = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError) as error:
            raise DataError(f"expected a picture's annotations in {file}, got something else ({error}); correct it") from error
        size = {side: tree.findtext(f"size/{side}") for side in ("width", "height")}
        images.append({"id": number, "file_name": tree.findtext("filename") or f"{file.stem}.jpg", **size})
        for entry in tree.iter("object"):
            corners = [entry.findtext(f"bndbox/{name}") or "" for name in ("xmin", "ymin", "xmax", "ymax")]
            try:
                left, top, right, bottom = map(float, corners)
                box = [left, top, right - left, bottom - top]  # VOC's own count from 1, most tools' from 0: a pixel at most
            except ValueError:
                box = corners
            name = (entry.findtext("name") or "").strip()
            kind = kinds.setdefault(name, len(kinds) + 1)
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": kind, "bbox": box})
    # In alphabetical order: the splits of a set then number their classes alike, as far as they have the same.
    categories = [{"id": kind, "name": name} for name, kind in sorted(kinds.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


# ---- imagefolder ----


def _imagefolder(folder: Path) -> dict[str, Split]:
    def one(name: str) -> Split | None:
        file = folder / name / "metadata.jsonl"
        return Split("imagefolder", lambda: sound(_imagefolder_content(file), file), file.parent) if file.is_file() else None

    return _each(folder, one)


def _imagefolder_content(file: Path) -> dict[str, Any]:
    """``{"file_name": …, "objects": {"bbox": [[x, y, w, h], …], "categories": […]}}`` a line; categories are names or numbers."""
    images, annotations, kinds = [], [], {}
    for number, line in enumerate(_lines(file), start=1):
        try:
            entry = json.loads(line)
            objects = entry.get("objects") or {}
            boxes = objects.get("bbox") or []
            labels = next((objects[key] for key in ("categories", "category", "label", "labels") if key in objects), [])
            paired = list(zip(boxes, labels, strict=True))
            images.append({"id": number, **{key: entry.get(key) for key in ("file_name", "width", "height")}})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(
                f'expected {{"file_name": …, "objects": {{"bbox": […], "categories": […]}}}} in line {number} of {file}, '
                f"got {line[:60]!r}; correct it"
            ) from error
        for box, label in paired:
            name = label if isinstance(label, str) else f"class {label}"
            kind = kinds.setdefault(name, len(kinds) + 1)
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": kind, "bbox": box})
    categories = [{"id": kind, "name": name} for name, kind in sorted(kinds.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


# ---- what the parts above share ----


def _content(
    pictures: Sequence[Path],
    root: Path,
    names: dict[int, str],
    boxes: Callable[[Path, tuple[int, int]], Iterable[tuple[int, list[float]]]],
) -> dict[str, Any]:
    """COCO's format, out of ``boxes`` (class, [left, top, width, height] in pixels) of a picture of (height, width)."""
    images, annotations = [], []
    for number, picture in enumerate(pictures, start=1):
        try:
            size = photo_size(picture)
        except PhotoError as error:
            raise DataError(f"expected a picture in {picture}, got none: {error}") from error
        name = str(picture.relative_to(root)) if picture.is_relative_to(root) else str(picture.resolve())
        images.append({"id": number, "file_name": name, "width": size[1], "height": size[0]})
        for kind, box in boxes(picture, size):
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": kind, "bbox": box})
    categories = [{"id": number, "name": name} for number, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()] if file.is_file() else []
