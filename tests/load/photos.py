"""A photo for each visitor, none like another, and the answer that it must get."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from app.engine.engine import EXAMPLE_NAMES, EXAMPLES, Engine
from app.server.lookups import Lookups

TOLERANCE = 2e-3
"""Of numbers in two answers: threads add in different orders."""


@cache
def photo(number: int, side: int = 0) -> bytes:
    """An example picture, mirrored, cropped and coloured by the number, as a JPEG; at most `side` pixels a side if given."""
    chance = np.random.default_rng(number)
    name = EXAMPLE_NAMES[number % len(EXAMPLE_NAMES)]
    with Image.open(EXAMPLES / f"{name}.jpg") as file:
        picture = file.convert("RGB")
    if chance.random() < 0.5:
        picture = ImageOps.mirror(picture)
    left, top, right, bottom = chance.uniform(0, 0.25, 4)
    width, height = picture.size
    picture = picture.crop((int(left * width), int(top * height), int(width * (1 - right)), int(height * (1 - bottom))))
    pixels = np.asarray(picture, np.float32) * chance.uniform(0.7, 1.1, 3) + chance.normal(0, 4, (*picture.size[::-1], 3))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if side:
        picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def alone(
    engine: Engine, content: bytes | None, name: str, requests: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the page answers where nobody else is there: about the run, and to each look-up in it."""
    run = engine.example(name) if content is None else engine.run(content, name)
    lookups = Lookups(engine.store)
    opened = lookups.open({"run": run.id, "state": {"lang": "en"}})
    return opened, [lookups.look({**request, "run": run.id}) for request in requests]


def differences(given: Any, expected: Any, place: str = "") -> list[str]:
    """Where two answers differ by more than how numbers are rounded; what names a run or a time does not count."""
    if isinstance(given, dict) and isinstance(expected, dict):
        if given.keys() != expected.keys():
            return [f"{place}: {sorted(given)} instead of {sorted(expected)}"]
        names = [name for name in given if name not in ("run", "picture", "milliseconds", "uirevision", "source")]
        return [line for name in names for line in differences(given[name], expected[name], f"{place}.{name}")]
    if isinstance(given, list) and isinstance(expected, list):
        if len(given) != len(expected):
            return [f"{place}: {len(given)} instead of {len(expected)}"]
        pairs = enumerate(zip(given, expected, strict=True))
        return [line for number, (one, other) in pairs for line in differences(one, other, f"{place}[{number}]")]
    if isinstance(given, float | int) and isinstance(expected, float | int):
        near = abs(given - expected) <= TOLERANCE * max(1.0, abs(expected))
        return [] if near else [f"{place}: {given} instead of {expected}"]
    if isinstance(given, str) and isinstance(expected, str) and given.startswith("{") and expected.startswith("{"):
        return differences(json.loads(given), json.loads(expected), place)  # a figure travels as text
    return [] if given == expected else [f"{place}: {str(given)[:60]!r} instead of {str(expected)[:60]!r}"]
