"""Pictures that somebody might send who means no good, or whose camera is odd; each with what must become of it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from litedetr.photos.decode import FORMATS

AVIF = [kind for kind in FORMATS if kind == "AVIF"]
"""None where Pillow does not know it."""
NOT_ONE = "This file is not a picture that can be read: send a JPEG, PNG or WebP file."
BROKEN = "This picture is broken or cut off: save it again and send the new copy."
HEIC = "This is a HEIC picture, which cannot be read here: save it as a JPEG and send that."
LARGE = "This picture is too large: {} × {} is {} megapixels, and the limit is 50. Scale it down and send it again."

SVG = b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
HTML = b"<!doctype html><html><script>alert(document.cookie)</script></html>"
PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n%%EOF"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/tmp/x) (w) file\n%%EOF"

NAMES = (
    "<img src=x onerror=alert(1)>.png", "{{constructor.constructor('alert(1)')()}}.png", "${7*7}.png",
    "../../../../etc/passwd.png", "%2e%2e%2fapp.py.png", "a\"b'c`d.png", "\u202egnp.exe.png", "사진 😀.png",
    "x" * 300 + ".png", ".png", "CON.png",
)  # fmt: skip
"""What a file may be called."""


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def quarters() -> Image.Image:
    """Red, green, blue and white quarters, 40 wide and 20 high."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:10, :20], picture[:10, 20:], picture[10:, :20], picture[10:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return Image.fromarray(picture)


def png(width: int, height: int, bits: int = 1, rows: bytes | None = None, extra: bytes = b"") -> bytes:
    """A PNG with this header, and pixels that are all there only where `rows` has them."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = zlib.compress(bytes(100) if rows is None else rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def turned(orientation: int) -> bytes:
    """The quarters as a camera stores them that was held so."""
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(quarters().transpose(undo[orientation]) if orientation in undo else quarters(), "JPEG", exif=exif, quality=95)


@cache
def refused() -> dict[str, tuple[bytes, str]]:
    """By name: the file, and the sentence that its sender must get."""
    jpeg = encoded(ImageOps.scale(quarters(), 8), "JPEG")
    whole = {kind: encoded(ImageOps.scale(quarters(), 8), kind) for kind in ("PNG", "WEBP", "TIFF", *AVIF)}
    gif, bmp = encoded(quarters(), "GIF"), encoded(quarters(), "BMP")
    ftyp = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
    return {
        "bomb.png": (png(30_000, 30_000), LARGE.format("30000", "30000", "900")),
        "larger than any.png": (png(2**31 - 1, 2**31 - 1), LARGE.format(2147483647, 2147483647, "4611686014132")),
        "bomb.gif": (gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:], LARGE.format("65535", "65535", "4295")),
        "bomb.jpg": (_with_size(jpeg, 65_500, 65_500), LARGE.format("65500", "65500", "4290")),
        "bomb.bmp": (
            bmp[:18] + struct.pack("<ii", 40_000, 40_000) + bmp[26:],
            LARGE.format(40000, 40000, 1600),
        ),
        "text bomb.png": (png(8, 8, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9_000_000), 9))), BROKEN),
        "no pixels.png": (png(0, 8), None),
        "cut.jpg": (jpeg[: len(jpeg) // 2], BROKEN),
        "cut.png": (whole["PNG"][: len(whole["PNG"]) // 2], BROKEN),
        "cut.webp": (whole["WEBP"][: len(whole["WEBP"]) // 2], None),
        **{f"cut.{kind.lower()}": (whole[kind][: len(whole[kind]) // 2], None) for kind in AVIF},
        "cut.tif": (whole["TIFF"][: len(whole["TIFF"]) // 2], None),
        "header alone.jpg": (jpeg[:20], None),
        "script.gif": (b"GIF89a/*" + b"*/=1;alert(document.domain);//" + b";" * 99, None),
        "svg.png": (SVG, NOT_ONE),
        "page.jpg": (HTML, NOT_ONE),
        "page with a picture in it.jpg": (HTML + jpeg, NOT_ONE),
        "paper.png": (PDF, NOT_ONE),
        "program.png": (EPS, NOT_ONE),
        "archive.webp": (_zip(), NOT_ONE),
        "empty.png": (b"", NOT_ONE),
        "phone.heic": (ftyp + bytes(300), HEIC),
        "phone.jpg": (ftyp + bytes(300), HEIC),
    }


@cache
def taken() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """By name: the file, and the (height, width) of what is seen in it."""
    small = quarters()
    frames = {"save_all": True, "append_images": [small.rotate(180), small.convert("L").convert("RGB")], "duration": 50}
    jpeg, whole = encoded(small, "JPEG", quality=95), encoded(small)
    broken = encoded(small, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01\x03\0" * 40, quality=95)
    words = b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, 2, 3, b"up", 0)  # the orientation as a text
    deep = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    palette = small.quantize(8)
    found = {
        "one.png": (encoded(Image.new("RGB", (1, 1), "red")), (1, 1)),
        "tall.png": (encoded(Image.new("L", (1, 20_000), 200)), (20_000, 1)),
        "wide.png": (encoded(Image.new("RGB", (20_000, 1), "red")), (1, 20_000)),
        "film.gif": (encoded(small, "GIF", **frames), (20, 40)),
        "film.webp": (encoded(small, "WEBP", lossless=True, **frames), (20, 40)),
        "film.png": (encoded(small, "PNG", **frames), (20, 40)),
        "print.jpg": (encoded(small.convert("CMYK"), "JPEG", quality=95), (20, 40)),
        "print.tif": (encoded(small.convert("CMYK"), "TIFF"), (20, 40)),
        "deep.png": (encoded(deep), (20, 40)),
        "deep.tif": (encoded(deep, "TIFF"), (20, 40)),
        "float.tif": (encoded(small.convert("F"), "TIFF"), (20, 40)),
        "palette.png": (encoded(palette), (20, 40)),
        "palette with a hole.png": (encoded(palette, transparency=0), (20, 40)),
        "glass.png": (encoded(small.convert("RGBA")), (20, 40)),
        "glass.webp": (encoded(small.convert("RGBA"), "WEBP", lossless=True), (20, 40)),
        "grey glass.png": (encoded(small.convert("LA")), (20, 40)),
        "bits.png": (encoded(small.convert("1")), (20, 40)),
        **{f"new.{kind.lower()}": (encoded(small, kind, quality=95), (20, 40)) for kind in AVIF},
        "two eyes.mpo": (encoded(small, "MPO", save_all=True, append_images=[small], quality=95), (20, 40)),
        "broken exif.jpg": (broken, (20, 40)),
        "exif of words.jpg": (encoded(small, "JPEG", exif=words, quality=95), (20, 40)),
        "exif beyond.jpg": (turned(99), (20, 40)),
        "and an archive.jpg": (jpeg + _zip(), (20, 40)),
        "and a page.png": (whole + HTML, (20, 40)),
        "page's name.html": (whole, (20, 40)),
    }
    return found | {f"held {side}.jpg": (turned(side), (20, 40)) for side in range(1, 9)}


@cache
def costly() -> dict[str, tuple[bytes, str]]:
    """By name: a file of few bytes that would keep a decoder busy for long, and what it has too many of; "" for nothing that a
    glance at its parts tells."""
    gif = b"GIF89a" + struct.pack("<HH", 8, 8) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 8, 8) + b"\0\x02\x02\x84\x51\0\x3b"
    jpeg = encoded(Image.new("RGB", (8, 8), "red"), "JPEG")
    entries = b"".join(struct.pack("<HHII", tag, 2, 1_000_000, 8) for tag in range(65_535))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + entries + struct.pack("<I", 8)
    rows = zlib.compress(bytes(8 * 9))
    return {
        "comments.gif": (gif + b"\x21\xfe\x01a\0" * 200_000 + frame, "comments"),
        "a comment.gif": (gif + b"\x21\xfe" + b"\x01a" * 500_000 + b"\0" + frame, "comments"),
        "scans.jpg": (_scans(7000, 6000), "scans"),
        "segments.jpg": (jpeg[:2] + b"\xff\xe5\0\x02" * 100_000 + jpeg[2:], "segments"),
        "padding.jpg": (jpeg[:2] + b"\xff" * 1_000_000 + jpeg[3:], "segments"),
        "chunks.png": (png(8, 8, extra=chunk(b"abCd", b"") * 10_000, rows=bytes(72)), "chunks"),
        "pixel chunks.png": (png(8, 8, extra=chunk(b"IDAT", b"") * 200_000, rows=bytes(72)), "chunks"),
        "exif.png": (png(8, 8, extra=chunk(b"eXIf", exif + bytes(1_000_000)), rows=rows), "EXIF entries"),
        "strips.tif": (_strips(1_000_000), "strips"),
        "comments.ppm": (b"P2 3000 3200 255\n" + b"#\n" * 500_000, "comments"),
        "a comment.ppm": (b"P6 #" + b"a" * 100_000 + b"\n8 8 255\n" + bytes(192), "comments"),
        "odd white.ppm": (b"P6 2500 2600 254\n" + b"\1" * (2500 * 2600 * 3), ""),
    }


def _scans(side: int, scans: int) -> bytes:
    """A grey progressive JPEG with so many scans in which nothing changes."""
    blocks = ((side + 7) // 8) ** 2
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, side, side, 1) + b"\x01\x11\0"
    quantisation = b"\xff\xdb" + struct.pack(">HB", 67, 0) + b"\x01" * 64
    codes = [
        b"\xff\xc4" + struct.pack(">HB", 20, kind) + bytes([1] + [0] * 15) + code for kind, code in ((0, b"\0"), (16, b"\xe0"))
    ]
    first = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\0\0\0\0" + bytes((blocks + 7) // 8)
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\0\x01\x3f\0" + bytes((-(-blocks // 2**14) * 15 + 7) // 8)
    return b"\xff\xd8" + quantisation + frame + b"".join(codes) + first + scan * scans + b"\xff\xd9"


def _strips(count: int) -> bytes:
    """A TIFF of as many strips as rows, all of them the same byte."""
    offsets = 24
    tags = [(256, 1, 1), (257, 1, count), (258, 1, 8), (259, 1, 1), (262, 1, 1), (273, count, offsets), (277, 1, 1), (278, 1, 1),
            (279, count, offsets + 4 * count)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, many, value) for tag, many, value in tags)
    lists = struct.pack("<I", 8) * count + struct.pack("<I", 1) * count
    head = b"II*\0" + struct.pack("<I", offsets + 8 * count) + bytes(16)
    return head + lists + struct.pack("<H", len(tags)) + entries + bytes(4)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil.py", "print(1)")
    return buffer.getvalue()


def _with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]
