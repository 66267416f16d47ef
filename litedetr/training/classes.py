"""Which class of a detector is which category of a set: by name, since every set numbers its classes as it likes."""

from __future__ import annotations

from collections.abc import Sequence

from litedetr.config import DetectorConfig
from litedetr.training.annotations import few
from litedetr.training.data import PhotoSet

CLASS_PARTS = ("heads.classes.", "selection.class_head.", "label_embed.")
"""Weights that have a row per class."""

def same_names(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Place in ``names`` -> place in ``others`` of the same name; where only capitals or _ - differ it is the same, too."""
    exact = {name: place for place, name in enumerate(others)}
    found = {place: exact[name] for place, name in enumerate(names) if name in exact}
    plain: dict[str, list[int]] = {}
    for place, name in enumerate(others):
        if place not in found.values():
            plain.setdefault(_plain(name), []).append(place)
    for place, name in enumerate(names):
        if place not in found and len(alike := plain.get(_plain(name), [])) == 1 and alike[0] not in found.values():
            found[place] = alike[0]
    return found


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def category_ids(config: DetectorConfig, photos: PhotoSet) -> tuple[list[int | None], list[str]]:
    """The set's category of each of the detector's classes, None for classes that it has not; and sentences on what differs.

    By name where the detector has names and some are the set's; by category id where all ids are the same; a detector without
    names and ids has its classes in the set's order, or counts them by category id, as the published models do.

    Raises:
        ValueError: the detector and the set have no class in common.
    """
    ids, file = photos.category_ids, photos.annotations.name
    if not config.class_names:
        return _by_number(config, photos), []
    common = same_names(config.class_names, photos.names)
    found: list[int | None] = [ids[common[place]] if place in common else None for place in range(config.num_classes)]
    if set(config.category_ids) == set(ids):  # renamed classes, then
        both = zip(config.category_ids, found, strict=True)
        found = [own if known is None and own not in found else known for own, known in both]
    if not any(number is not None for number in found):
        raise ValueError(
            f"expected a class of {photos.annotations} that the detector knows, got {few(photos.names)}, and it knows "
            f"{few(list(config.class_names))}; measure it on a set of its classes, or rename them"
        )
    strangers = [name for name, number in zip(photos.names, ids, strict=True) if number not in found]
    renamed = [
        f"{name} is {photos.names[ids.index(number)]}"
        for name, number in zip(config.class_names, found, strict=True)
        if number is not None and name != photos.names[ids.index(number)]
    ]
    notes = [f"{file}: the detector's classes under other names: {few(renamed)}"] if renamed else []
    if strangers:
        unknown = f"{len(strangers)} classes that the detector does not know"
        notes.append(f"{file}: {unknown} are left out of the figures ({few(strangers)})")
    return found, notes


def _by_number(config: DetectorConfig, photos: PhotoSet) -> list[int | None]:
    given = list(config.category_ids)
    if given:
        absent = sorted(set(photos.category_ids) - set(given))
        if absent:
            raise ValueError(
                f"expected categories that the detector knows in {photos.annotations}, got {absent[:5]} besides; "
                "measure on a set with the detector's classes"
            )
        return given
    if config.num_classes == len(photos.category_ids):
        return list(photos.category_ids)
    if config.num_classes > max(photos.category_ids):
        return list(range(config.num_classes))  # outputs counted by category id, as in the published models
    raise ValueError(
        f"expected {config.num_classes} categories in {photos.annotations}, got {len(photos.category_ids)}; "
        "measure on the set of classes that the detector was trained for"
    )
