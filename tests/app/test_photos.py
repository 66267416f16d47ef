"""Pictures of every kind: each gives a run or a sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from app.server.exports import png
from litedetr.image import PhotoError
from tests.pictures import scene


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png(side: int) -> bytes:
    """The header of a picture with side x side pixels, and next to nothing behind it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_runs(engine, mode):
    if mode == "I;16":
        image = Image.fromarray((np.arange(80 * 90).reshape(80, 90) * 9).astype(np.uint16))
    else:
        image = scene(90, 80).convert(mode)
    run = engine.run(encoded(image, "TIFF" if mode in ("CMYK", "F") else "PNG"))
    assert run.size == (80, 90)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 900), (900, 2), (1700, 60)])
def test_every_shape_runs(engine, width, height):
    run = engine.run(scene(width, height) if min(width, height) > 50 else Image.new("RGB", (width, height), "red"))
    assert run.size == (height, width)
    shown = Image.open(io.BytesIO(run.picture))
    assert max(shown.size) <= 1600
    assert png(run).startswith(b"\x89PNG")


def test_exif_turns_the_photo(engine):
    exif = Image.Exif()
    exif[274] = 6
    run = engine.run(encoded(scene(120, 80), "JPEG", exif=exif.tobytes()))
    assert run.size == (120, 80)
    assert Image.open(io.BytesIO(run.picture)).size == (80, 120)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a picture"),
        (b"no picture at all", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (encoded(scene(200, 200), "JPEG")[:900], "broken"),
        (huge_png(20_000), "too large"),
        (huge_png(8_000), "too large"),
    ],
    ids=["empty", "text", "svg", "cut off", "400 megapixels", "64 megapixels"],
)
def test_a_hostile_picture_is_a_sentence(engine, content, words):
    before = len(engine.store)
    with pytest.raises(PhotoError, match=words) as caught:
        engine.run(content)
    assert str(caught.value).endswith(".")
    assert "/" not in str(caught.value)
    assert len(engine.store) == before
