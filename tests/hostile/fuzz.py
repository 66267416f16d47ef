"""Random and mutated input for everything that reads what strangers send: ``python -m tests.hostile.fuzz --cases 100000``.

Each case gives a value or the one kind of error that its reader promises; anything else is printed with what repeats it, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import atexit
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from app.run.state import ViewState
from litedetr import DetectorConfig, EncoderSchedule
from litedetr.config import presets
from litedetr.image import PhotoError, open_photo, photo_size
from litedetr.photos import decode
from litedetr.weights import WeightsError, headers, understand

FUZZED_PIXELS = 250_000
"""Pictures may have so many pixels here: what is told is how they are read, not how long a large one takes."""
NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    "", "0", "-1", "1e999", "nan", "NaN", "inf", "-inf", "9" * 20, "9" * 5000, "0x10", "१२", "½", "1_000", " 1", "1 ", "+1",
    "1.5", "true", "null", "S1", "S4", "S0", "S٣", "B1 all", "decoder 3", "h1.S4.2", "step", "../../etc/passwd", "a/b", "a/b\n",
    "points", "{{constructor}}", "<script>", "${x}", "%00", "\x00", "\ud800", "H3L1-(2+1)x3", "H9L9-(99+1)x99", "H0L0-(0+1)x0",
    "٣", "en",
    "H3L1-(2+1)x3\n", "ko", "0,0", "0.5,0.5", "1,0,0,1", "0.1,0.1,0.9", "," * 50, "[[[[", "__proto__",
)  # fmt: skip
PARAMETERS = (
    "view", "t", "q", "at", "scale", "step", "head", "hide", "example", "lang", "model", "cls", "heat", "n", "box", "mute",
    "film", "plan", "other", "tour", "", "x",
)  # fmt: skip


@dataclass
class Tally:
    """What became of a reader's cases."""

    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    broken: list[str] = field(default_factory=list)


# ---- what to send ----


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The bytes with a few of them flipped, cut, doubled, swapped or replaced by numbers that matter."""
    content = bytearray(data)
    for _ in range(1 + int(rng.expovariate(0.5))):
        size = len(content)
        place = rng.randrange(size + 1) if rng.random() < 0.5 else rng.randrange(min(size, 64) + 1)  # headers most of all
        match rng.randrange(7):
            case 0 if place < size:
                content[place] ^= 1 << rng.randrange(8)
            case 1 if place < size:
                content[place] = rng.randrange(256)
            case 2:
                del content[place : place + rng.randrange(1, 40)]
            case 3:
                content[place:place] = content[place : place + rng.randrange(1, 40)]
            case 4:
                content[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 5:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(NUMBERS) % 256**width
                content[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 6:
                del content[place:]
    return bytes(content)


def word(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(WORDS)
    return "".join(chr(rng.randrange(rng.choice((127, 0x3000, 0x110000)))) for _ in range(rng.randrange(12)))


def value(rng: random.Random, depth: int = 2):
    """Something that JSON can hold, NaN and infinities included."""
    pick = rng.randrange(8 if depth else 6)
    if pick < 4:
        number = rng.choice((-1, 1)) * rng.choice(NUMBERS)
        return rng.choice((None, True, False, number, rng.uniform(-2, 2), float(rng.choice(("nan", "inf", "1e300")))))
    if pick < 6:
        return word(rng)
    if pick == 6:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {word(rng): value(rng, depth - 1) for _ in range(rng.randrange(4))}


@cache
def pictures() -> list[bytes]:
    """One small picture of each kind that is read, and more of the kinds with many ways to write one."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).resize((33, 21))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    found = []

    def add(picture: Image.Image, kind: str, **options) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        found.append(buffer.getvalue())

    add(rgb, "JPEG", exif=exif)
    add(rgb, "JPEG", progressive=True)
    add(rgb.convert("CMYK"), "JPEG")
    add(rgb, "PNG", exif=exif)
    add(rgb.convert("RGBA"), "PNG")
    add(rgb.quantize(9), "PNG", transparency=3)
    add(Image.fromarray((np.arange(600).reshape(20, 30) * 99).astype(np.uint16)), "PNG")
    add(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)], duration=40)
    add(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90), rgb.rotate(20)])
    add(rgb, "WEBP", lossless=True)
    add(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)], exif=exif)
    add(rgb, "BMP")
    add(rgb.quantize(16), "BMP")
    add(rgb, "TIFF", compression="tiff_lzw")
    add(rgb, "TIFF", compression="tiff_adobe_deflate", exif=exif)
    add(rgb.convert("F"), "TIFF")
    add(rgb.convert("1"), "TIFF", compression="group4")
    add(rgb, "PPM")
    add(rgb, "AVIF", speed=10)
    add(rgb, "MPO", save_all=True, append_images=[rgb])
    return found


@cache
def weights() -> bytes:
    return save({"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(3, dtype=torch.float16)}, {"format": "pt"})


@cache
def configs() -> list[dict]:
    return [config.to_dict() for config in presets().values()]


# ---- who reads it ----


def a_state(rng: random.Random) -> None:
    values = {rng.choice(PARAMETERS): value(rng) if rng.random() < 0.3 else word(rng) for _ in range(rng.randrange(8))}
    text = urlencode({key: str(item) for key, item in values.items()}, errors="replace")
    query = rng.choice((values, text, mutated(rng, text.encode()).decode("latin-1"), f"?{text}"))
    state = ViewState.from_query(ViewState.from_query(query).to_query())  # as a link keeps it
    assert ViewState.from_query(state.to_query()) == state
    assert ViewState.from_query(state.to_url()) == state
    assert all(len(text) < 5000 for text in state.to_query().values())


def a_schedule(rng: random.Random) -> None:
    numbers = [str(rng.choice((0, 1, 2, 3, 6, 99, 999, 1000, 10**9, "1" * 5000, "", "-1", "٣"))) for _ in range(4)]
    text = rng.choice(("H{}L{}-({}+1)x{}", "H{}L{}-({}+1)×{}", " H{} L{} - ({}+1)x{}", "h{}l{}-({}+1)x{}")).format(*numbers)
    if rng.random() < 0.5:
        text = mutated(rng, text.encode()).decode("utf-8", "replace")
    schedule = EncoderSchedule.parse(word(rng) if rng.random() < 0.1 else text)
    assert EncoderSchedule.parse(str(schedule)) == schedule


def a_config(rng: random.Random) -> None:
    values = dict(rng.choice(configs()))
    if rng.random() < 0.7:
        for name in rng.sample(list(values), rng.randrange(1, 4)):
            small = rng.choice((rng.randrange(1, 9), 32 * rng.randrange(1, 9)))
            values[name] = small if isinstance(values[name], int | float) and rng.random() < 0.5 else value(rng)
        text = json.dumps(values).encode()
    else:
        text = mutated(rng, json.dumps(values).encode())
    (folder() / "config.json").write_bytes(text)
    config = understand(folder(), "a model")
    assert config is None or DetectorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def some_weights(rng: random.Random) -> None:
    (folder() / "model.safetensors").write_bytes(mutated(rng, weights()))
    for tensor in headers(folder() / "model.safetensors", "a model").values():
        assert all(isinstance(side, int) and side >= 0 for side in tensor.shape)


def a_picture(rng: random.Random) -> None:
    content = mutated(rng, rng.choice(pictures()))
    if rng.random() < 0.02:
        content = rng.choice(pictures())[: rng.randrange(12)] + content
    pixels = open_photo(content)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.size <= 3 * FUZZED_PIXELS


def a_pictures_size(rng: random.Random) -> None:
    height, width = photo_size(mutated(rng, rng.choice(pictures())))
    assert 0 < height * width <= FUZZED_PIXELS


READERS: dict[str, tuple[Callable[[random.Random], None], type[Exception]]] = {
    "ViewState.from_query": (a_state, type("Never", (Exception,), {})),
    "EncoderSchedule.parse": (a_schedule, ValueError),
    "config.json": (a_config, WeightsError),
    "safetensors' header": (some_weights, WeightsError),
    "open_photo": (a_picture, PhotoError),
    "photo_size": (a_pictures_size, PhotoError),
}


@cache
def folder() -> Path:
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="litedetr-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def fuzz(cases: int, seed: int = 0) -> dict[str, Tally]:
    """So many cases, shared evenly by all readers."""
    before, decode.MAX_PIXELS = decode.MAX_PIXELS, FUZZED_PIXELS
    try:
        return {
            name: _tally(name, cases // len(READERS) + (rank < cases % len(READERS)), seed) for rank, name in enumerate(READERS)
        }
    finally:
        decode.MAX_PIXELS = before


def _tally(name: str, cases: int, seed: int) -> Tally:
    act, refusal = READERS[name]
    tally = Tally()
    for number in range(cases):
        start = time.process_time()
        try:
            act(random.Random(f"{seed} {name} {number}"))
            tally.read += 1
        except refusal as error:
            tally.refused += 1
            if not 10 < len(str(error)) < 700 or "Traceback" in str(error) or "/shm/" in str(error):
                tally.broken.append(f"--seed {seed}, {name}, case {number}: no sentence: {str(error)[:200]!r}")
        except Exception as error:
            tally.broken.append(f"--seed {seed}, {name}, case {number}: {type(error).__name__}: {str(error)[:200]}")
        spent = time.process_time() - start
        tally.seconds += spent
        tally.slowest = max(tally.slowest, spent)
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    tallies = fuzz(options.cases, options.seed)
    print(f"{'reader':22} {'read':>8} {'refused':>8} {'broken':>7} {'seconds':>8} {'slowest, ms':>12}")
    for name, tally in tallies.items():
        figures = f"{tally.read:8,} {tally.refused:8,} {len(tally.broken):7,} {tally.seconds:8.1f} {1000 * tally.slowest:12.1f}"
        print(f"{name:22} {figures}")
        for line in tally.broken[:20]:
            print(f"  {line}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    return 1 if any(tally.broken for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
