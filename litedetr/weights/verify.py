"""``python -m litedetr verify OWNER/NAME``: the published check of weights on the Hub, for whoever is online.

transformers publishes, for each of its Deformable DETR models, the first numbers that it gives for COCO val2017's picture 39769
with its own preprocessing (shorter side 800, longer at most 1333, Pillow's bilinear filter).
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from litedetr.detector import Detector
from litedetr.image import open_photo
from litedetr.weights import WeightsError, find
from litedetr.weights.download import sha256
from litedetr.weights.published import CATALOGUE, Published, catalogue, write_catalogue

PHOTO = "http://images.cocodataset.org/val2017/000000039769.jpg"
TOLERANCE = 0.01
EXAMPLE = next(iter(sorted((Path(__file__).parents[2] / "assets" / "examples").glob("*.jpg"))), None)
"""A photo for those whose published numbers nobody knows."""

# The first query's first three logits, and its box's centre and width.
PUBLISHED = {
    "SenseTime/deformable-detr": ((-9.6645, -4.3449, -5.8705), (0.8693, 0.2289, 0.2492)),
    "SenseTime/deformable-detr-with-box-refine": ((-8.8895, -5.4187, -6.8153), (0.7828, 0.2208, 0.4323)),
    "SenseTime/deformable-detr-with-box-refine-two-stage": ((-6.7108, -4.3213, -6.3777), (0.2583, 0.5499, 0.4683)),
}


@dataclass(frozen=True)
class Verification:
    """Published and computed numbers, and their largest difference."""

    model: str
    published: tuple[float, ...]
    computed: tuple[float, ...]

    @property
    def difference(self) -> float:
        return max(abs(a - b) for a, b in zip(self.published, self.computed, strict=True))

    @property
    def ok(self) -> bool:
        return self.difference <= TOLERANCE

    def __str__(self) -> str:
        rows = [f"{self.model}, first query on COCO val2017 39769: three logits, then its box's centre and width"]
        for name, values in (("published", self.published), ("computed", self.computed)):
            rows.append(f"{name:10}" + " ".join(f"{value:9.4f}" for value in values))
        verdict = "the same" if self.ok else f"DIFFERENT (at most {TOLERANCE} is allowed)"
        return "\n".join([*rows, f"largest difference {self.difference:.5f}: {verdict}"])


def verify(model: str, photo: str | Path | None = None) -> Verification:
    """Load a model from the Hub and compare its first numbers with the published ones.

    Args:
        model: one of `PUBLISHED`.
        photo: COCO val2017's 000000039769.jpg; downloaded if None.

    Raises:
        WeightsError: nothing is published for this model, or the picture cannot be fetched.
        litedetr.image.PhotoError: it is none.
    """
    if model not in PUBLISHED:
        raise WeightsError(f"expected one of {', '.join(PUBLISHED)}, whose numbers are published, got {model!r}")
    picture = Image.fromarray(open_photo(_bytes(photo)))
    detector = Detector.from_pretrained(model)
    with torch.inference_mode():
        output = detector(pixels(picture, detector))
    logits, box = PUBLISHED[model]
    return Verification(model, (*logits, *box), (*output.logits[0, 0, :3].tolist(), *output.boxes[0, 0, :3].tolist()))


def verify_published(photo: str | Path, file: Path = CATALOGUE) -> Iterator[str]:
    """Download and convert everything in the catalogue, run each model on one photo, and write bytes and SHA-256 into it.

    Yields:
        The lines of a table in Markdown; a model that failed has what went wrong in its row.
    """
    yield "| model | MB | SHA-256 | seconds a photo | found |"
    yield "| --- | --- | --- | --- | --- |"
    entries = dict(catalogue())
    for name, entry in catalogue().items():
        try:
            detector = Detector.from_pretrained(name)
            entries[name] = replace(entry, **_measured(entry), checked=True)
            start = time.perf_counter()
            found = detector.predict(photo)
            seconds = f"{time.perf_counter() - start:.1f}"
            best = ", ".join(f"{name} {score:.2f}" for name, score in zip(found.names[:3], found.scores[:3], strict=True))
        except WeightsError as error:
            seconds, best = "", f"FAILED: {error}"
        known = entries[name]
        size = "" if known.bytes is None else f"{known.bytes / 1e6:.0f}"
        yield f"| `{name}` | {size} | {(known.sha256 or '')[:12]} | {seconds} | {best or 'nothing'} |"
    write_catalogue(entries.values(), file)


def _measured(entry: Published) -> dict[str, int | str]:
    """Bytes and SHA-256 of the published file, which is in the cache."""
    if entry.repo is None:
        origin = json.loads((entry.folder / "origin.json").read_text(encoding="utf-8"))
        return {"bytes": origin["bytes"], "sha256": origin["sha256"]}
    file = find(entry.name) / "model.safetensors"
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def pixels(picture: Image.Image, detector: Detector) -> torch.Tensor:
    """(1, 3, height, width) resized and normalised as transformers does it."""
    c = detector.config
    short, long = sorted(picture.size)
    side = min(c.short_side, c.long_side * short / long)
    width, height = (round(side) if value == short else int(side * value / short) for value in picture.size)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    normalised = (resized - np.float32(c.pixel_mean)) / np.float32(c.pixel_std)
    return torch.from_numpy(normalised).permute(2, 0, 1)[None].contiguous()


def _bytes(photo: str | Path | None) -> bytes:
    try:
        if photo is not None:
            return Path(photo).read_bytes()
        with urllib.request.urlopen(PHOTO, timeout=60) as answer:
            return answer.read()
    except OSError as error:
        raise WeightsError(
            f"expected the picture {photo or PHOTO}, and could not get it: {error}. "
            "Download it elsewhere and give it with --photo."
        ) from error
