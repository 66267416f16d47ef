"""The size of picture that boxes were annotated in, and whether it is turned by its EXIF orientation.

Most tools show photos upright and count pixels so; a few count them as stored. The sizes in the annotations tell, where a turn
changes the size; where it does not, what the set's other pictures tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from litedetr.image import PhotoError, PhotoHeader, open_photo, photo_header
from litedetr.training.annotations import Annotations, DataError, Entry, few

READERS = 8
"""Threads that read headers: most of the time goes into waiting for the disk."""
TAIL = 4096
ENDS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
"""What stands near the end of a whole file."""


@dataclass(frozen=True)
class AnnotatedSize:
    """What a picture's boxes count pixels of: a width and height, of the picture turned by EXIF (``upright``) or as stored."""

    width: int
    height: int
    upright: bool


def annotated_sizes(
    found: Annotations, files: Sequence[Path], boxes: Sequence[Sequence[Entry]]
) -> tuple[list[AnnotatedSize], list[str]]:
    """Every picture's annotated size, and sentences on what was not as the annotations say.

    A picture of another resolution keeps the annotations' size, which its boxes are in; width and height the wrong way round, or
    none at all, are taken from the file.

    Args:
        files, boxes: of every picture.

    Raises:
        DataError: files that are no whole pictures, or have another shape than the annotations say.
    """
    headers = _headers(files, found.path)
    said = [(image["width"], image["height"]) for image in found.images]
    turned = [place for place, header in enumerate(headers) if header.orientation > 1]
    votes = {place: _vote(said[place], headers[place], boxes[place]) for place in turned}
    for_upright, for_stored = ([place for place, vote in votes.items() if vote is way] for way in (True, False))
    usual = len(for_upright) >= len(for_stored)
    placed, strange = [], []
    kinds: dict[str, list[str]] = {}
    for place, (header, size) in enumerate(zip(headers, said, strict=True)):
        vote = votes.get(place, True)
        upright = usual if vote is None else vote
        height, width = header.upright if upright else header.stored
        name = files[place].name
        if 0 in size:
            kinds.setdefault("width and height are not given, and taken from the file", []).append(name)
            size = width, height
        elif size == (height, width) and width != height and _fits(boxes[place], width, height):
            kinds.setdefault("width and height are the wrong way round, and taken from the file", []).append(name)
            size = width, height
        elif not _same_shape(size, (width, height)):
            strange.append(f"{name}: {size[0]} x {size[1]} annotated, {width} x {height} in the file")
        elif size != (width, height):
            kinds.setdefault("the file has another resolution than is annotated: boxes are scaled", []).append(name)
        placed.append(AnnotatedSize(*size, upright))
    if strange:
        raise DataError(
            f"expected the pictures that {found.path} says, got {len(strange)} of another shape ({'; '.join(strange[:3])}); "
            "use the files that were annotated, or correct width and height"
        )
    notes = [f"{len(names)} of {len(files)} pictures: {what} ({few(names)})" for what, names in kinds.items()]
    for way, what in ((True, "boxes are of the upright picture"), (False, "boxes are of the picture as stored, and it stays so")):
        names = [files[place].name for place in turned if placed[place].upright is way]
        if names:
            notes.append(f"{len(names)} of {len(files)} pictures have an EXIF orientation: {what} ({few(names)})")
    return placed, notes


def _vote(said: tuple[int, int], header: PhotoHeader, boxes: Sequence[Entry]) -> bool | None:
    """True: annotated upright, False: as stored; None where that cannot be told."""
    upright, stored = header.upright[::-1], header.stored[::-1]
    if upright == stored or 0 in said:
        return None
    ways = [way for way, size in ((True, upright), (False, stored)) if _same_shape(said, size)]
    if len(ways) != 1:
        return None
    if said in (upright, stored) and not _fits(boxes, *said) and _fits(boxes, *said[::-1]):
        return not ways[0]  # width and height are the wrong way round
    return ways[0]


def _fits(boxes: Sequence[Entry], width: int, height: int) -> bool:
    """Whether all boxes lie in a picture of this size."""
    return all(x + w <= width + 1 and y + h <= height + 1 for x, y, w, h in (box["bbox"] for box in boxes))


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two (width, height) differ in scale alone, up to rounding."""
    expected = one[1] * other[0] / other[1]
    return abs(one[0] - expected) <= max(1.0, 0.01 * expected)


def _headers(files: Sequence[Path], annotations: Path) -> list[PhotoHeader]:
    """Every file's header; files that are cut off are refused here, not in the middle of a training."""

    def read(file: Path) -> PhotoHeader | PhotoError:
        try:
            if not _ends(file):
                open_photo(file)
            return photo_header(file)
        except PhotoError as error:
            return error

    with ThreadPoolExecutor(READERS) as readers:
        headers = list(readers.map(read, files))
    broken = [f"{file.name}: {error}" for file, error in zip(files, headers, strict=True) if isinstance(error, PhotoError)]
    if broken:
        raise DataError(
            f"expected pictures for all entries of {annotations}, {len(broken)} of {len(files)} files cannot be read "
            f"({'; '.join(broken[:3])}); replace the files or drop their entries"
        )
    return headers


def _ends(file: Path) -> bool:
    """Whether a file ends as its kind does; where that cannot be told, it has to be decoded to know."""
    mark = ENDS.get(file.suffix.lower())
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - TAIL))
        return mark is None or mark in content.read()
