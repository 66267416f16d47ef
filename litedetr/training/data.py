"""Photos with boxes, and the endless stream of training batches made from them.

Category ids may have gaps: they become 0 … K-1 in the order in which the annotations list them.
"""

from __future__ import annotations

import logging
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litedetr.batch.processes import ALONE, Processes
from litedetr.image import PhotoError, open_photo
from litedetr.training.annotated_sizes import AnnotatedSize, annotated_sizes
from litedetr.training.annotations import Annotations, DataError, Entry, few, read_annotations
from litedetr.training.augment import NONE, AugmentSettings, Sample, augment
from litedetr.training.layouts import find
from litedetr.training.targets import Targets

log = logging.getLogger(__name__)
MULTIPLE = 32


@dataclass(frozen=True)
class Photo:
    """One picture's entry: its file, its size as its boxes count pixels, its boxes (n, 4) ``xyxy`` and labels (n,).

    upright: whether the file's EXIF orientation is undone when it is opened.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    upright: bool = True


class PhotoSet:
    """The pictures of one annotation file, decoded on demand and kept in memory up to ``cache_bytes``.

    Everything is checked here, before any training: what cannot be used is left out with a line in the log, or refused.
    ``skipped`` counts the annotations left out, by reason; crowd boxes are no training targets and stand there too.
    ``licences`` are those that the file names of its pictures.
    ``content`` is what the figures are measured on: COCO's format, with crowds, and without what is left out.

    Args:
        annotations: a COCO-format file, or what another layout's reader made.
        images: the folder that file names are in.

    Raises:
        DataError: see `read_annotations` and `annotated_sizes`; or pictures are missing, or no box is left.
    """

    def __init__(self, annotations: Annotations | Path | str, images: Path | str, cache_bytes: int = 2_000_000_000) -> None:
        found = annotations if isinstance(annotations, Annotations) else read_annotations(annotations)
        self.annotations, self.folder = found.path, Path(images)
        self.names = [category["name"] for category in found.categories]
        self.category_ids = [category["id"] for category in found.categories]
        self.licences = found.licences
        files = _files(found, self.folder)
        of_image: dict[int | str, list[Entry]] = {image["id"]: [] for image in found.images}
        for box in found.boxes:
            of_image[box["image_id"]].append(box)
        placed, notes = annotated_sizes(found, files, list(of_image.values()))
        self.photos, kept, left_out, reaching = _photos(found, files, placed, of_image)
        problems = {**found.left_out, **left_out}
        self.skipped = {reason: len(names) for reason, names in problems.items()}
        self.content = {"images": found.images, "categories": found.categories, "annotations": kept}
        for note in (*found.notes, *notes):
            log.warning("%s: %s", self.annotations.name, note)
        for reason, names in problems.items():
            log.warning("%s: %d annotations left out: %s (%s)", self.annotations.name, len(names), reason, few(names))
        if reaching:
            often = len(reaching) > 0.2 * len(kept)
            hint = "; are they left, top, right, bottom? left, top, width, height is expected" if often else ""
            text = "%s: %d boxes cut at their picture's edge (%s)%s"
            log.warning(text, self.annotations.name, len(reaching), few(reaching), hint)
        if not any(len(photo.boxes) for photo in self.photos):
            why = "; ".join(f"{count} left out: {reason}" for reason, count in self.skipped.items()) or "there is none at all"
            raise DataError(f"expected at least one usable box in {self.annotations}, got none ({why}); correct the annotations")
        self._cache: dict[int, np.ndarray] = {}
        self._free = cache_bytes
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path | str, split: str = "train", **options: int) -> PhotoSet:
        """A split of a folder in any layout that `litedetr.training.layouts` knows.

        Raises:
            DataError: there is no such split.
        """
        splits = find(folder)
        if split not in splits:
            raise DataError(f"expected a split called {split} in {folder}, found {', '.join(splits)}; name another or add it")
        found = splits[split]
        return cls(found.read(), found.images, **options)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, index: int) -> Sample:
        """The picture as it is, with its boxes; do not change the arrays."""
        photo, image = self.photos[index], self._cache.get(index)
        if image is None:
            image = _decoded(photo)
            with self._lock:
                if self._free >= image.nbytes:
                    self._free -= image.nbytes
                    self._cache[index] = image
        scale = np.array([image.shape[1] / photo.width, image.shape[0] / photo.height] * 2, dtype=np.float32)
        return Sample(image, photo.boxes * scale, photo.labels)


def _decoded(photo: Photo) -> np.ndarray:
    """As `Detector.predict` opens it, unless its boxes were drawn on the picture as stored."""
    try:
        return open_photo(photo.path, photo.upright)
    except PhotoError as error:
        raise DataError(f"expected a picture in {photo.path}, got none: {error} Replace the file or drop its entry") from error


def _files(found: Annotations, folder: Path) -> list[Path]:
    """Every picture's file, be it named with folders, also those of another system, or without."""
    files, missing = [], []
    for image in found.images:
        name = image["file_name"].replace("\\", "/")
        tried = (folder / image["file_name"], folder / name, folder / Path(name).name)
        files.append(next((path for path in tried if path.is_file()), tried[0]))
        if not files[-1].is_file():
            missing.append(Path(name).name)
    if missing:
        raise DataError(
            f"expected {len(files)} pictures in {folder}, {len(missing)} are missing "
            f"({few(missing)}); unpack the pictures there or correct the annotations"
        )
    return files


def _photos(
    found: Annotations, files: list[Path], placed: list[AnnotatedSize], of_image: dict[int | str, list[Entry]]
) -> tuple[list[Photo], list[Entry], dict[str, list[str]], list[str]]:
    """Every picture with its targets; all usable annotations; the others' names by reason; those whose box was cut by a pixel or
    more."""
    label = {category["id"]: index for index, category in enumerate(found.categories)}
    photos, kept, reaching = [], [], []
    left_out: dict[str, list[str]] = {}
    for image, path, frame in zip(found.images, files, placed, strict=True):
        boxes, labels = [], []
        for entry in of_image[image["id"]]:
            x, y, w, h = entry["bbox"]
            cut = (max(x, 0.0), max(y, 0.0), min(x + w, frame.width), min(y + h, frame.height))
            if cut[2] <= cut[0] or cut[3] <= cut[1]:
                left_out.setdefault("its box lies outside of the picture", []).append(entry["name"])
                continue
            kept.append(entry)
            if entry["iscrowd"]:
                left_out.setdefault("crowd", []).append(entry["name"])
                continue
            if max(cut[0] - x, cut[1] - y, x + w - cut[2], y + h - cut[3]) >= 1:
                reaching.append(entry["name"])
            boxes.append(cut)
            labels.append(label[entry["category_id"]])
        photos.append(
            Photo(
                id=image["id"],
                path=path,
                width=frame.width,
                height=frame.height,
                boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
                labels=np.array(labels, dtype=np.int64),
                upright=frame.upright,
            )
        )
    return photos, kept, left_out, reaching


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
    """Endless training batches, made ahead of time by `workers` background threads.

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
        workers: int = 1,
    ) -> None:
        self.processes = processes
        self.photos, self.augmentation, self.seed = photos, augmentation, seed
        tall = np.array([photo.height > photo.width for photo in photos.photos])
        repeats = repeat_factors(photos, rare)
        self._objects = objects_by_class(photos) if augmentation.pasted > 0 else []
        self._members = [_repeated(np.flatnonzero(tall == side), repeats, seed) for side in (False, True)]
        self._state = {"batches": 0, "drawn": [0, 0]} | (position or {})
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="batches")
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
        order = self._orders.get(key)
        if order is None:  # several threads may make it at once: it is the same
            order = np.random.default_rng((self.seed, 2, side, epoch)).permutation(members)
            self._orders = {k: v for k, v in self._orders.items() if k[0] != side or k[1] == epoch - 1} | {key: order}
        rng = np.random.default_rng((self.seed, 3, side, turn))
        sample = self.photos.sample(int(order[place]))
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
