"""Annotations in COCO's format, made sound: everything in them is read, left out with a reason, or refused, before anything runs.

Exports of many tools are read as they come: a byte-order mark, ids as numbers here and as text there, boxes as text, missing or
null areas and flags, polygons without a box, backslashes in file names, root categories.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class DataError(ValueError):
    """A data folder that cannot be used: what was expected, what came, what to do."""


@dataclass(frozen=True)
class Annotations:
    """Pictures, classes and boxes, each with all that it needs, as plain numbers.

    Attributes:
        path: the file.
        images: id, file_name, width and height (0 where the file does not say).
        categories: id, name, supercategory ("" for none).
        boxes: id (from 1), image_id, category_id, bbox (x, y, width, height in pixels), area, iscrowd (0 or 1); ``name`` is what
            the file calls it, for messages.
        left_out: reason -> names of the annotations that cannot be used.
        notes: what was understood otherwise than it stands there, a sentence each.
        licences: names of those that the pictures are said to have.
    """

    path: Path
    images: list[Entry]
    categories: list[Entry]
    boxes: list[Entry]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)


def read_annotations(path: Path | str) -> Annotations:
    """A COCO-format file.

    Raises:
        DataError: no file, no JSON, without the lists that it must have; a picture or class without id or name, or with another
            one's; no picture or class at all.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"expected COCO-format annotations at {path}, found no file; give the folder that holds them")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"expected JSON in {path}, got something else ({error}); fetch the file again") from error
    return sound(content, path)


def sound(content: Any, path: Path) -> Annotations:
    """What `read_annotations` makes of a file's ``content``; ``path`` is for messages."""
    needed = ("images", "annotations", "categories")
    absent = [key for key in needed if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if absent:
        raise DataError(f"expected the lists {needed} in {path}, {absent} missing; is it a COCO detection file?")
    notes: list[str] = []
    images = _named(content["images"], "picture", "file_name", path)
    for image, entry in zip(images, content["images"], strict=True):
        width, height = (_number(entry.get(key)) for key in ("width", "height"))
        known = width is not None and height is not None and min(width, height) >= 1
        image |= {"width": round(width), "height": round(height)} if known else {"width": 0, "height": 0}
    categories = _named(content["categories"], "category", "name", path)
    for category, entry in zip(categories, content["categories"], strict=True):
        category["supercategory"] = str(entry.get("supercategory") or "")
    numbers = {category["id"]: category["id"] for category in categories}
    if any(isinstance(number, str) for number in numbers):
        numbers = {number: place for place, number in enumerate(numbers, start=1)}
        categories = [{**category, "id": numbers[category["id"]]} for category in categories]
        notes.append("its categories have texts as ids: they are numbered from 1")
    boxes, left_out, drawn = _boxes(content["annotations"], {image["id"]: image for image in images}, numbers)
    if drawn:
        notes.append(f"{drawn} annotations have a polygon and no box: the box around it is taken")
    categories = _without_doubles(categories, boxes, path, notes)
    _check_scale(boxes, path)
    return Annotations(path, images, categories, boxes, left_out, notes, _licences(content))


def few(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _named(entries: list, one: str, name: str, path: Path) -> list[Entry]:
    """id and name of every picture or category, each of its own id."""
    if not entries:
        raise DataError(f"expected at least one {one} in {path}, got none; check the file")
    found = []
    for number, entry in enumerate(entries):
        own, text = (_key(entry.get("id")), entry.get(name)) if isinstance(entry, dict) else (None, None)
        text = str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text
        text = text.strip() if isinstance(text, str) else ""
        absent = [key for key, there in (("id", own is not None), (name, bool(text))) if not there]
        if absent:
            raise DataError(f"expected ('id', '{name}') of every {one} in {path}, number {number} lacks {absent}; complete it")
        found.append({"id": own, name: text})
    if any(isinstance(entry["id"], str) for entry in found):  # then all are texts
        found = [{**entry, "id": str(entry["id"])} for entry in found]
    counts = Counter(entry["id"] for entry in found)
    twice = [entry[name] for entry in found if counts[entry["id"]] > 1]
    if twice:
        raise DataError(f"expected an id of its own for every {one} in {path}, {few(twice)} share theirs; renumber them")
    return found


def _boxes(
    entries: list, images: Mapping[Any, Entry], numbers: Mapping[Any, int]
) -> tuple[list[Entry], dict[str, list[str]], int]:
    """Boxes of listed pictures and categories; names of the others by reason; how many were drawn around a polygon."""
    boxes: list[Entry] = []
    left_out: dict[str, list[str]] = {}
    seen: set[tuple] = set()
    drawn = 0
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            left_out.setdefault("it is no JSON object", []).append(f"number {place}")
            continue
        image = _like(_key(entry.get("image_id")), images)
        category = _like(_key(entry.get("category_id")), numbers)
        box, crowd = _numbers(entry.get("bbox"), 4), _flag(entry.get("iscrowd"))
        if box is None and not entry.get("bbox"):
            box = _around(entry.get("segmentation"))
            drawn += box is not None
        name = f"{entry.get('id')} of {images[image]['file_name'] if image in images else 'no picture'}"
        reason = ""
        if image not in images:
            reason = "its picture is not listed"
        elif category not in numbers:
            reason = "its category is not listed"
        elif crowd is None:
            reason = "its iscrowd is neither 0 nor 1"
        elif box is None:
            reason = "its box is not four numbers"
        elif not all(map(math.isfinite, box)):
            reason = "its box is not finite"
        elif min(box[2:]) <= 0:
            reason = "its box is empty"
        elif entry.get("id") is not None and (same := (str(entry["id"]), image, category, *box)) in seen:
            reason = "it is listed twice"
        if reason:
            left_out.setdefault(reason, []).append(name)
            continue
        if entry.get("id") is not None:
            seen.add(same)
        area = _number(entry.get("area"))
        boxes.append({
            "id": len(boxes) + 1, "image_id": image, "category_id": numbers[category], "bbox": box,
            "area": area if area is not None and math.isfinite(area) and area > 0 else box[2] * box[3],
            "iscrowd": crowd, "name": name,
        })  # fmt: skip
    return boxes, left_out, drawn


def _without_doubles(categories: list[Entry], boxes: list[Entry], path: Path, notes: list[str]) -> list[Entry]:
    """The categories without root ones (Roboflow's, of supercategory "none"), nor those of another's name, if nothing is of them.

    Raises:
        DataError: two of one name, with boxes of both.
    """
    used = {box["category_id"] for box in boxes}
    above = {category["supercategory"] for category in categories}
    kept: dict[str, Entry] = {}
    dropped: list[str] = []
    for category in categories:
        name, before = category["name"], kept.get(category["name"])
        root = category["supercategory"] == "none" and name in above
        if category["id"] not in used and (root or before):
            dropped.append(f"{name} (id {category['id']})")
        elif before is None:
            kept[name] = category
        elif before["id"] not in used:
            dropped.append(f"{name} (id {before['id']})")
            kept[name] = category
        else:
            raise DataError(
                f"expected a name of its own for every category in {path}, got boxes of {name} as id {before['id']} and as id "
                f"{category['id']}; rename or join them"
            )
    if dropped:
        why = "is a root, or has another one's name"
        notes.append(f"categories left out, since each {why} and no box is of it: {few(dropped)}")
    return [category for category in categories if category in kept.values()]


def _licences(content: Entry) -> list[str]:
    """Names of the licences that pictures point to."""
    listed = content.get("licenses")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    known = {_key(entry.get("id")): entry.get("name") for entry in entries}
    used = {_key(image.get("license")) for image in content["images"]}
    return sorted({str(name) for number, name in known.items() if number in used and name})


def _check_scale(boxes: list[Entry], path: Path) -> None:
    """Refuse boxes that are shares of the picture."""
    if len(boxes) > 1 and all(max(box["bbox"]) <= 1 for box in boxes):
        raise DataError(
            f"expected boxes in pixels (left, top, width, height) in {path}, got shares of the picture, from 0 to 1; multiply "
            "them by its sides"
        )


def _key(value: Any) -> int | str | None:
    """An id: a whole number, be it written as a number or as text, or another text; None where it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    text = value.strip() if isinstance(value, str) else ""
    if text.isascii() and text.removeprefix("-").isdigit():
        return int(text)
    return text or None


def _like(key: int | str | None, known: Mapping[Any, Any]) -> int | str | None:
    """The id as it is known: as text where the others are."""
    return str(key) if key is not None and key not in known else key


def _number(value: Any) -> float | None:
    """A number, be it written as a number or as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _numbers(values: Any, count: int) -> list[float] | None:
    """``count`` numbers, or None."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    numbers = [_number(value) for value in values]
    return None if None in numbers else numbers


def _flag(value: Any) -> int | None:
    """0 or 1; None where it is neither."""
    if value is None or isinstance(value, bool):
        return int(bool(value))
    number = _number(value)
    return int(number) if number in (0, 1) else None


def _around(polygons: Any) -> list[float] | None:
    """The box around polygons, each x, y, x, y, …; None where there are none."""
    if not isinstance(polygons, list) or not polygons:
        return None
    parts = [_numbers(part, len(part)) for part in polygons if isinstance(part, list) and len(part) >= 6]
    if not parts or None in parts:
        return None
    xs, ys = ([value for part in parts for value in part[axis::2]] for axis in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
