"""Photos with boxes in a COCO-format folder, and the endless stream of training batches made from them.

``DIR/train.json`` with the pictures in ``DIR/train/``, ``DIR/val.json`` with ``DIR/val/``. Category ids may have gaps:
they become 0 … K-1 in the order in which the file lists them.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from litedetr.batch.processes import ALONE, Processes
from litedetr.training.augment import NONE, AugmentSettings, Sample, augment
from litedetr.training.targets import Targets

log = logging.getLogger(__name__)
MULTIPLE = 32


class DataError(ValueError):
    """A data folder that cannot be used: what was expected, what came, what to do."""


@dataclass(frozen=True)
class Photo:
    """One picture's entry: its file, its size as the annotations say, its boxes (n, 4) ``xyxy`` and labels (n,)."""

    id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray


class PhotoSet:
    """The pictures of one annotation file, decoded on demand and kept in memory up to ``cache_bytes``.

    ``skipped`` counts the annotations left out, by reason; crowd boxes are no training targets and stand there too.
    """

    def __init__(self, annotations: Path | str, images: Path | str, cache_bytes: int = 2_000_000_000) -> None:
        self.annotations, self.folder = Path(annotations), Path(images)
        content = read_annotations(self.annotations)
        self.names = [category["name"] for category in content["categories"]]
        self.category_ids = [category["id"] for category in content["categories"]]
        _check_entries(content, self.annotations)
        self.photos, problems, reaching = _photos(content, self.folder, self.category_ids)
        self.skipped = {reason: len(names) for reason, names in problems.items()}
        missing = [photo.path.name for photo in self.photos if not photo.path.is_file()]
        if missing:
            raise DataError(
                f"expected {len(self.photos)} pictures in {self.folder}, {len(missing)} are missing "
                f"({', '.join(missing[:3])}, …); unpack the pictures there or correct the annotations"
            )
        for reason, names in problems.items():
            log.warning("%s: %d annotations left out: %s (%s)", self.annotations.name, len(names), reason, _few(names))
        if reaching:
            log.warning("%s: %d boxes cut at their picture's edge (%s)", self.annotations.name, len(reaching), _few(reaching))
        self._cache: dict[int, np.ndarray] = {}
        self._free = cache_bytes
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path | str, split: str = "train", **options: int) -> PhotoSet:
        """``DIR/train.json`` + ``DIR/train/``, or another split's."""
        folder = Path(folder)
        return cls(folder / f"{split}.json", folder / split, **options)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, index: int) -> Sample:
        """The picture as it is, with its boxes; do not change the arrays."""
        photo, image = self.photos[index], self._cache.get(index)
        if image is None:
            image = decode(photo.path)
            with self._lock:
                if self._free >= image.nbytes:
                    self._free -= image.nbytes
                    self._cache[index] = image
        scale = np.array([image.shape[1] / photo.width, image.shape[0] / photo.height] * 2, dtype=np.float32)
        return Sample(image, photo.boxes * scale, photo.labels)


def read_annotations(path: Path) -> dict:
    """The JSON of a COCO-format file, checked for the lists that it must have."""
    if not path.is_file():
        raise DataError(f"expected COCO-format annotations at {path}, found no file; give the folder that holds them")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"expected JSON in {path}, got something else ({error}); fetch the file again") from error
    needed = ("images", "annotations", "categories")
    absent = [key for key in needed if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if absent:
        raise DataError(f"expected the lists {needed} in {path}, {absent} missing; is it a COCO detection file?")
    return content


def decode(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 RGB; EXIF orientation is left alone, as COCO's boxes are."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    data = np.fromfile(path, dtype=np.uint8)
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise DataError(f"expected a picture in {path}, OpenCV cannot decode it; replace the file or drop its entry")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _check_entries(content: dict, path: Path) -> None:
    """Refuse pictures and classes that cannot be told apart, or lack what every one needs."""
    for key, one, needed in (
        ("images", "picture", ("id", "file_name", "width", "height")),
        ("categories", "category", ("id", "name")),
    ):
        if not content[key]:
            raise DataError(f"expected at least one {one} in {path}, got none; check the file")
        for number, entry in enumerate(content[key]):
            absent = [name for name in needed if name not in entry]
            if absent:
                raise DataError(f"expected {needed} of every {one} in {path}, number {number} lacks {absent}; complete it")
        counts = Counter(entry["id"] for entry in content[key])
        twice = [str(entry.get("file_name", entry.get("name"))) for entry in content[key] if counts[entry["id"]] > 1]
        if twice:
            raise DataError(f"expected an id of its own for every {one} in {path}, {_few(twice)} share theirs; renumber them")
    empty = [str(entry["file_name"]) for entry in content["images"] if min(entry["width"] or 0, entry["height"] or 0) < 1]
    if empty:
        raise DataError(f"expected the width and height of every picture in {path}, {_few(empty)} have none; correct them")


def _few(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _photos(content: dict, folder: Path, category_ids: list[int]) -> tuple[list[Photo], dict[str, list[str]], list[str]]:
    """Every picture with its usable boxes; the annotations left out, by reason; those whose box was cut by a pixel or more."""
    number = {category: index for index, category in enumerate(category_ids)}
    entries = {entry["id"]: entry for entry in content["images"]}
    boxes: dict[int, list] = {key: [] for key in entries}
    labels: dict[int, list[int]] = {key: [] for key in entries}
    problems: dict[str, list[str]] = {}
    reaching, seen = [], set()
    for annotation in content["annotations"]:
        reason, box = _usable(annotation, entries, number)
        own = annotation.get("id")
        if not reason and own is not None and own in seen:
            reason = "its id was used before"
        seen.add(own)
        picture = entries.get(annotation.get("image_id"), {}).get("file_name", "no picture")
        name = f"{own} of {picture}"
        if reason:
            problems.setdefault(reason, []).append(name)
            continue
        x, y, w, h = map(float, annotation["bbox"])
        if max(box[0] - x, box[1] - y, x + w - box[2], y + h - box[3]) >= 1:
            reaching.append(name)
        boxes[annotation["image_id"]].append(box)
        labels[annotation["image_id"]].append(number[annotation["category_id"]])
    photos = [
        Photo(
            id=key,
            path=folder / entry["file_name"],
            width=entry["width"],
            height=entry["height"],
            boxes=np.array(boxes[key], dtype=np.float32).reshape(-1, 4),
            labels=np.array(labels[key], dtype=np.int64),
        )
        for key, entry in entries.items()
    ]
    return photos, problems, reaching


def _usable(annotation: dict, entries: dict, number: dict) -> tuple[str, tuple[float, ...]]:
    """("", xyxy box cut at the picture's edges), or the reason why an annotation is no target."""
    entry, box = entries.get(annotation.get("image_id")), annotation.get("bbox")
    if entry is None:
        return "its picture is not listed", ()
    if annotation.get("category_id") not in number:
        return "its category is not listed", ()
    if annotation.get("iscrowd"):
        return "crowd", ()
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError):
        return "its box is not four numbers", ()
    if not all(map(math.isfinite, (x, y, w, h))):
        return "its box is not finite", ()
    if w <= 0 or h <= 0:
        return "its box is empty", ()
    cut = (max(x, 0.0), max(y, 0.0), min(x + w, entry["width"]), min(y + h, entry["height"]))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return "its box lies outside of the picture", ()
    return "", cut


@dataclass(frozen=True)
class Batch:
    """images (B, H, W, 3) uint8; mask (B, H, W) bool, True = padding; position: the stream's state after this batch."""

    images: Tensor
    mask: Tensor
    targets: Targets
    position: dict


def collate(samples: list[Sample], canvas: tuple[int, int], position: dict | None = None) -> Batch:
    """Pictures put into the left top corner of one canvas (width, height); boxes become relative to the picture."""
    images = np.zeros((len(samples), canvas[1], canvas[0], 3), dtype=np.uint8)
    mask = np.ones((len(samples), canvas[1], canvas[0]), dtype=bool)
    labels, boxes = [], []
    for row, sample in enumerate(samples):
        width, height = sample.size
        images[row, :height, :width] = sample.image
        mask[row, :height, :width] = False
        relative = sample.boxes / np.array([width, height, width, height], dtype=np.float32)
        centre, side = (relative[:, :2] + relative[:, 2:]) / 2, relative[:, 2:] - relative[:, :2]
        boxes.append(torch.from_numpy(np.concatenate((centre, side), axis=1)))
        labels.append(torch.from_numpy(sample.labels))
    return Batch(torch.from_numpy(images), torch.from_numpy(mask), Targets.from_lists(labels, boxes), position or {})


def canvas_for(size: int, landscape: bool) -> tuple[int, int]:
    """(width, height) of a batch for pictures of long side ``size``: about 4:3, both sides multiples of 32."""
    long = math.ceil(size / MULTIPLE) * MULTIPLE
    short = math.ceil(0.75 * size / MULTIPLE) * MULTIPLE
    return (long, short) if landscape else (short, long)


class BatchStream:
    """Endless training batches, made ahead of time in a background thread.

    Wide and tall pictures are batched apart, so that little is padded. Everything random follows from the seed and from
    how many pictures were drawn, hence ``position`` (JSON) is all it takes to go on exactly where a run was cut off.
    ``request(size, count)`` orders a batch, ``take()`` waits for the oldest one ordered. Each of several ``processes`` makes
    its part of the batch that one alone would make; the seed, the requests and hence the positions are the same in all.
    """

    def __init__(
        self,
        photos: PhotoSet,
        augmentation: AugmentSettings = NONE,
        seed: int = 0,
        rare: float = 0.0,
        position: dict | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.photos, self.augmentation, self.seed = photos, augmentation, seed
        tall = np.array([photo.height > photo.width for photo in photos.photos])
        repeats = repeat_factors(photos, rare)
        self._objects = objects_by_class(photos) if augmentation.pasted > 0 else []
        self._members = [_repeated(np.flatnonzero(tall == side), repeats, seed) for side in (False, True)]
        self._state = {"batches": 0, "drawn": [0, 0]} | (position or {})
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ordered: list[Future[Batch]] = []

    @property
    def epoch_size(self) -> int:
        """Pictures drawn in one pass, repeated ones counted as often as they come."""
        return sum(map(len, self._members))

    def __len__(self) -> int:
        """Batches ordered and not yet taken."""
        return len(self._ordered)

    def request(self, size: int, count: int, mild: bool = False) -> None:
        """Order ``count`` pictures on a canvas whose long side is ``size``; ``mild``: see `AugmentSettings.mild`.

        Raises:
            DataError: not a picture for each process.
        """
        if count < self.processes.count:
            raise DataError(
                f"expected at least a picture for each of {self.processes.count} processes, got a batch of {count}; "
                "enlarge the batch in the recipe or start fewer processes"
            )
        state = self._state
        share = len(self._members[1]) / self.epoch_size
        side = int(np.random.default_rng((self.seed, 1, state["batches"])).random() < share)
        drawn = list(state["drawn"])
        turns = range(drawn[side], drawn[side] + count)
        start, stop = self.processes.share(count)
        drawn[side] += count
        self._state = {"batches": state["batches"] + 1, "drawn": drawn}
        settings = self.augmentation.mild() if mild else self.augmentation
        order = (side, turns[start:stop], canvas_for(size, not side), settings, self._state)
        self._ordered.append(self._pool.submit(self._make, *order))

    def take(self) -> Batch:
        """The oldest batch ordered."""
        return self._ordered.pop(0).result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, side: int, turns: range, canvas: tuple[int, int], settings: AugmentSettings, position: dict) -> Batch:
        return collate([self._one(side, turn, canvas, settings) for turn in turns], canvas, position)

    def _one(self, side: int, turn: int, canvas: tuple[int, int], settings: AugmentSettings) -> Sample:
        members = self._members[side]
        epoch, place = divmod(turn, len(members))
        key = (side, epoch)
        if key not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != side or k[1] == epoch - 1}
            self._orders[key] = np.random.default_rng((self.seed, 2, side, epoch)).permutation(members)
        rng = np.random.default_rng((self.seed, 3, side, turn))
        sample = self.photos.sample(int(self._orders[key][place]))
        others = rng.integers(len(self.photos), size=4).tolist()
        return augment(
            sample, canvas, rng, settings,
            others=lambda: [self.photos.sample(item) for item in others],
            objects=(lambda: self._object(rng)) if self._objects else None,
        )  # fmt: skip

    def _object(self, rng: np.random.Generator) -> tuple[Sample, int]:
        """A picture, and the number of one of its boxes; every class is as likely."""
        of_class = self._objects[rng.integers(len(self._objects))]
        photo, box = of_class[rng.integers(len(of_class))]
        return self.photos.sample(int(photo)), int(box)


def objects_by_class(photos: PhotoSet, smallest: float = 24.0) -> list[np.ndarray]:
    """For each class that has any: (n, 2) picture and number of the boxes whose sides have ``smallest`` pixels or more."""
    found: dict[int, list[tuple[int, int]]] = {}
    for index, photo in enumerate(photos.photos):
        large = (photo.boxes[:, 2:] - photo.boxes[:, :2] >= smallest).all(1)
        for box in np.flatnonzero(large):
            found.setdefault(int(photo.labels[box]), []).append((index, int(box)))
    return [np.array(found[label]) for label in sorted(found)]


def repeat_factors(photos: PhotoSet, rare: float) -> np.ndarray:
    """(len(photos),) how often each picture comes in one pass (LVIS, Gupta et al. 2019).

    A class present in less than the share ``rare`` of the pictures has its pictures repeated sqrt(rare / share) times;
    a picture follows its rarest class. 0 turns it off.
    """
    share = np.zeros(len(photos.names))
    for photo in photos.photos:
        share[np.unique(photo.labels)] += 1 / len(photos)
    factor = np.maximum(1.0, np.sqrt(rare / np.maximum(share, 1e-9)))
    return np.array([factor[photo.labels].max() if len(photo.labels) else 1.0 for photo in photos.photos])


def _repeated(members: np.ndarray, factors: np.ndarray, seed: int) -> np.ndarray:
    """Indices as often as their factor says, a fraction being settled by chance once."""
    chance = np.random.default_rng((seed, 0)).random(len(factors))
    times = np.floor(factors + chance).astype(int)
    return np.repeat(members, times[members])
