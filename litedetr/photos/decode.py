"""A picture, as a file or as pixels -> (H, W, 3) uint8 RGB: opened, guarded, turned, flattened.

Without PyTorch and without the rest of the package, so that a small process of its own can do it (`litedetr.photos.process`).
"""

from __future__ import annotations

import io
import mmap
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from litedetr.photos import parts

MAX_PIXELS = 50_000_000
"""Larger pictures are refused by their header, before anything is decoded."""
ENOUGH = 2000
"""Pixels of the longer side that no detector needs more of: a JPEG that has twice as many, or four or eight times, is decoded at
that part of its size, which saves most of the time."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()))
"""Of all that Pillow knows (AVIF since 11.3), what photos come in: others start programs (EPS) or are hardly looked after."""
NOT_ALLOWED = "This picture may not be read: change the permissions of the file."
HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


@runtime_checkable
class Readable(Protocol):
    """A file object opened for bytes, as web servers hand uploads over."""

    def read(self) -> bytes: ...


Encoded = str | os.PathLike | bytes | bytearray | memoryview | Readable | Image.Image

Image.MAX_IMAGE_PIXELS = None  # the guard below says it in our words, from the header

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What undoes each of EXIF's orientations."""


class PhotoError(ValueError):
    """A picture that cannot be used; the message is a sentence for the person who sent it."""


@dataclass(frozen=True)
class Opened:
    """A photo as detectors take it.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, of a large JPEG at a part of its size.
        size: (height, width) of the photo itself, in whose pixels coordinates count.
    """

    pixels: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class PhotoHeader:
    """What a file says of its picture: the (height, width) that its pixels are stored in; EXIF's orientation, 1 to 8."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after turning."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def open_photo(photo: Encoded | np.ndarray, upright: bool = True) -> np.ndarray:
    """Any picture -> (H, W, 3) uint8 RGB; the same bytes give the same pixels wherever they are opened.

    Transparent parts become white. A grey picture of more than 8 bits, or of floats, has its own range of finite values stretched
    from black to white, and a warning says so.

    Args:
        photo: a path, encoded bytes, a file object, a PIL image; or the pixels, as `from_pixels` takes them.
        upright: turn by the EXIF orientation; else as stored (a TIFF is always upright).

    Raises:
        PhotoError: not a picture, empty, broken, or more than `MAX_PIXELS`.
    """
    if isinstance(photo, np.ndarray):
        return from_pixels(photo)
    with _opened(photo) as image:
        return _decode(image, upright)


def open_small(
    photo: Encoded | np.ndarray | Opened, on_size: Callable[[tuple[int, int]], object] = lambda size: None
) -> Opened:
    """Any picture, upright, with no more pixels than a detector needs (`ENOUGH`); else as `open_photo`. The same bytes give the
    same pixels wherever they are opened. ``on_size`` is told the (height, width) of an encoded one before it is decoded."""
    if isinstance(photo, Opened):
        return photo
    if isinstance(photo, np.ndarray):
        pixels = from_pixels(photo)
        return Opened(pixels, tuple(pixels.shape[:2]))
    with _opened(photo) as image:
        on_size(image.size[::-1])
        part = max(image.size) // ENOUGH
        if part < 2 or not isinstance(image, JpegImageFile) or image is photo:  # the caller's own picture stays as it is
            pixels = _decode(image, upright=True)
            return Opened(pixels, tuple(pixels.shape[:2]))
        header = PhotoHeader(image.size[::-1], _orientation(image))
        image.draft(None, (image.size[0] // part, image.size[1] // part))
        return Opened(_decode(image, upright=True), header.upright)


def photo_header(photo: Encoded) -> PhotoHeader:
    """By the file's header alone. Errors are those of `open_photo`."""
    with _opened(photo) as image:
        width, height = image.size
        # Pillow turns a TIFF by itself, and decodes a whole PNG in search of EXIF behind the pixels, where hardly any has some.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        return PhotoHeader((height, width), _orientation(image) if known else 1)


def photo_size(photo: Encoded) -> tuple[int, int]:
    """(height, width) in pixels of what `open_photo` would give, by the file's header alone. Errors are those of `open_photo`."""
    return photo_header(photo).upright


@contextmanager
def _opened(photo: Encoded) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked; whatever goes wrong with it is a `PhotoError`."""
    file = photo if isinstance(photo, Image.Image) else source(photo)
    try:
        if not isinstance(file, Image.Image):
            _check_parts(file)
        with nullcontext(file) if isinstance(file, Image.Image) else Image.open(file, formats=FORMATS) as image:
            _check_size(*image.size)
            yield image
    except PhotoError:
        raise
    except parts.TooManyParts as error:
        raise PhotoError(
            f"This picture has more {error} than any picture needs: save it again as a JPEG and send the new copy."
        ) from None
    except MemoryError:
        raise
    except PermissionError:
        raise PhotoError(NOT_ALLOWED) from None
    except UnidentifiedImageError:
        raise PhotoError(_not_a_picture(file)) from None
    except Exception:  # Pillow's readers raise whatever comes of broken bytes
        raise PhotoError("This picture is broken or cut off: save it again and send the new copy.") from None


def source(photo: Any) -> Path | io.BytesIO:
    """The file, or the encoded bytes."""
    if isinstance(photo, Readable):
        photo = photo.read()
        if not isinstance(photo, bytes | bytearray | memoryview):
            raise PhotoError(
                f"Expected a file object that gives bytes, got one that gives {type(photo).__name__}: "
                'open it with "rb", or await its bytes.'
            )
        if not photo:
            raise PhotoError("Nothing is left to read in this file object: call its seek(0) first.")
    if isinstance(photo, bytes | bytearray | memoryview):
        return io.BytesIO(photo)
    if not isinstance(photo, str | os.PathLike):
        raise PhotoError(
            "Expected a picture as a path, encoded bytes, a file object, a PIL image, an array or a tensor, got "
            f"{type(photo).__name__}."
        )
    if isinstance(photo, str) and photo.startswith(("http://", "https://")):
        raise PhotoError("This is a web address: download the picture, and give its path or its bytes.")
    path = Path(photo)
    if not path.is_file():
        raise PhotoError(f"There is no picture called {path.name}: check the path.")
    return path


def _check_parts(file: Path | io.BytesIO) -> None:
    if isinstance(file, io.BytesIO):
        parts.check(file.getvalue())
    elif file.stat().st_size:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            parts.check(content)


def _not_a_picture(source: Path | io.BytesIO) -> str:
    head = source.getvalue()[:12] if isinstance(source, io.BytesIO) else _head(source)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return "This is a HEIC picture, which cannot be read here: save it as a JPEG and send that."
    return "This file is not a picture that can be read: send a JPEG, PNG or WebP file."


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF takes nothing from the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def from_pixels(pixels: np.ndarray, channels_first: bool = False) -> np.ndarray:
    """Pixels of any usual shape and kind -> (H, W, 3) uint8; ``channels_first`` where the shape allows both."""
    wanted = (
        "Expected the pixels of one photo in RGB order, of shape (height, width, 3), (3, height, width) or (height, width), "
        f"from 0 to 255 or as floats from 0 to 1, got {pixels.shape} {pixels.dtype}"
    )
    grey = pixels.ndim == 2
    if grey:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise PhotoError(f"{wanted}: give several photos to predict_batch one by one.")
    first, last = pixels.shape[0] in (1, 3, 4), pixels.shape[2] in (1, 3, 4)
    if first and (channels_first or not last) and not grey:
        pixels, last = np.moveaxis(pixels, 0, 2), True
    if not last:
        raise PhotoError(f"{wanted}.")
    _check_size(pixels.shape[1], pixels.shape[0])
    if pixels.dtype != np.uint8:
        pixels = _to_bytes(pixels, wanted)
    if pixels.shape[2] == 4:
        return _on_white(Image.fromarray(pixels))
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _to_bytes(pixels: np.ndarray, wanted: str) -> np.ndarray:
    """(H, W, C) of another kind than uint8 -> uint8."""
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind not in "uif":
        raise PhotoError(f"{wanted}.")
    low, high = float(pixels.min()), float(pixels.max())  # NaN where one is
    top = 1.0 if pixels.dtype.kind == "f" else 255.0
    if low >= 0 and high <= top:
        return (pixels * (255 / top)).round().astype(np.uint8)
    if pixels.shape[2] == 1:
        return _stretched(pixels)
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)  # as Pillow opens such files
    raise PhotoError(f"{wanted} with values from {low:g} to {high:g}: divide or clip them.")


def _stretched(values: np.ndarray) -> np.ndarray:
    """Grey values of any range -> uint8, the least of the finite ones black and the largest white."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise PhotoError("This picture has no finite values: nothing can be seen in it.")
    warnings.warn("A grey picture of more than 8 bits: its own range of values was taken from black to white.", stacklevel=2)
    low, high = float(finite.min()), float(finite.max())
    values = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    return (np.clip((values - low) / max(high - low, 1e-30), 0, 1) * 255).astype(np.uint8)


def _on_white(image: Image.Image) -> np.ndarray:
    rgba = image.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise PhotoError("This picture is empty: it has no pixels.")
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"This picture is too large: {width} × {height} is {width * height / 1e6:.0f} megapixels, and the limit is "
            f"{MAX_PIXELS / 1e6:.0f}. Scale it down and send it again."
        )


def _decode(image: Image.Image, upright: bool) -> np.ndarray:
    if image.format == "TIFF":
        image.filename, name = "", image.filename  # else Pillow maps files into memory where it can, and forgets to turn them
    image.load()
    if image.format == "TIFF":
        image.filename = name
    turn = _TURNS.get(_orientation(image)) if upright else None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_stretched(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # a conversion to the same mode is a copy
