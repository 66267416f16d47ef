"""Photos in: open, turn, guard, resize, normalise, pad; and boxes back to the photo's pixels."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

MAX_PIXELS = 50_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Of all that Pillow knows, what photos come in: others start programs (EPS) or are hardly looked after."""
HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}



@runtime_checkable
class Readable(Protocol):
    """A file object opened for bytes, as web servers hand uploads over."""

    def read(self) -> bytes: ...


@runtime_checkable
class Tensor(Protocol):
    """A tensor of PyTorch, which is not needed to know one."""

    def detach(self) -> Tensor: ...
    def cpu(self) -> Tensor: ...
    def is_floating_point(self) -> bool: ...
    def float(self) -> Tensor: ...
    def numpy(self) -> np.ndarray: ...


Photo = str | os.PathLike | bytes | bytearray | memoryview | Readable | Image.Image | np.ndarray | Tensor

Image.MAX_IMAGE_PIXELS = None  # the guard below says it in our words, from the header

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What undoes each of EXIF's orientations."""


class PhotoError(ValueError):
    """A picture that cannot be used; the message is a sentence for the person who sent it."""


@dataclass(frozen=True)
class PhotoGeometry:
    """How a photo lies in the network's input. Sizes are (height, width) in pixels.

    The photo is resized to `resized` and put in the top left corner of a canvas of size `padded`.
    """

    photo: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]

    def to_photo(self, points: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """(..., 2) x, y in [0, 1] of the padded image -> pixels of the photo; points outside stay outside."""
        return points * self._scale(points)

    def from_photo(self, points: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """(..., 2) x, y in the photo's pixels -> [0, 1] of the padded image."""
        return points / self._scale(points)

    def _scale(self, like: Tensor | np.ndarray) -> Tensor | np.ndarray:
        scale = [self.padded[axis] * self.photo[axis] / self.resized[axis] for axis in (1, 0)]
        return np.asarray(scale, dtype=like.dtype) if isinstance(like, np.ndarray) else like.new_tensor(scale)


@dataclass(frozen=True)
class PhotoHeader:
    """What a file says of its picture: the (height, width) that its pixels are stored in; EXIF's orientation, 1 to 8."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after turning."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def open_photo(photo: Photo, upright: bool = True) -> np.ndarray:
    """Any picture -> (H, W, 3) uint8 RGB; the same bytes give the same pixels wherever they are opened.

    Transparent parts become white. A grey picture of more than 8 bits, or of floats, has its own range of finite values stretched
    from black to white, and a warning says so.

    Args:
        photo: a path, encoded bytes, a file object, a PIL image; or the pixels in RGB order as an array (H, W, 3) or a tensor
            (3, H, W), either of which may be the other way round, grey (H, W) or with alpha: 0 to 255, or floats in 0 to 1.
        upright: turn by the EXIF orientation; else as stored (a TIFF is always upright).

    Raises:
        PhotoError: not a picture, empty, broken, or more than `MAX_PIXELS`.
    """
    if isinstance(photo, Tensor):
        return _from_pixels(_to_numpy(photo), channels_first=True)
    if isinstance(photo, np.ndarray):
        return _from_pixels(photo)
    with _opened(photo) as image:
        return _decode(image, upright)


def photo_header(photo: Photo) -> PhotoHeader:
    """By the file's header alone. Errors are those of `open_photo`."""
    with _opened(photo) as image:
        width, height = image.size
        # Pillow turns a TIFF by itself, and decodes a whole PNG in search of EXIF behind the pixels, where hardly any has some.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        return PhotoHeader((height, width), _orientation(image) if known else 1)


def photo_size(photo: Photo) -> tuple[int, int]:
    """(height, width) in pixels of what `open_photo` would give, by the file's header alone. Errors are those of `open_photo`."""
    return photo_header(photo).upright


@contextmanager
def _opened(photo: Photo) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked; whatever goes wrong with it is a `PhotoError`."""
    source = photo if isinstance(photo, Image.Image) else _source(photo)
    try:
        with nullcontext(source) if isinstance(source, Image.Image) else Image.open(source, formats=FORMATS) as image:
            _check_size(*image.size)
            yield image
    except PhotoError:
        raise
    except PermissionError:
        raise PhotoError("This picture may not be read: change the permissions of the file.") from None
    except UnidentifiedImageError:
        raise PhotoError(_not_a_picture(source)) from None
    except Exception:  # Pillow's readers raise whatever comes of broken bytes
        raise PhotoError("This picture is broken or cut off: save it again and send the new copy.") from None


def _source(photo: Any) -> Path | io.BytesIO:
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


def _to_numpy(photo: Tensor) -> np.ndarray:
    photo = photo.detach().cpu()
    return (photo.float() if photo.is_floating_point() else photo).numpy()  # NumPy has no bfloat16


def _from_pixels(pixels: np.ndarray, channels_first: bool = False) -> np.ndarray:
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
    # JPEG decodes at 1/2, 1/4 or 1/8 for free; detectors never need more than about 2,000 pixels of a side, but the
    # coordinates that go out are the original's, so the full size is kept.
    image.load()
    turn = _TURNS.get(_orientation(image)) if upright else None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_stretched(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_white(image)
    return np.array(image.convert("RGB"))


def resized_size(photo: tuple[int, int], short_side: int, long_side: int, divisor: int = 1) -> tuple[int, int]:
    """(height, width) whose shorter side is `short_side`, unless the longer one would exceed `long_side`.

    Both are rounded to multiples of `divisor`: the photo is stretched a little rather than padded, because coarse scales of a
    small input are only a few tokens wide, and padding would shift their coordinates by whole fractions of the picture.
    """
    short, long = min(photo), max(photo)
    scale = min(short_side / short, long_side / long)
    return tuple(max(1, round(side * scale / divisor)) * divisor for side in photo)


def resize(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> the (height, width) asked for; averaged where it shrinks."""
    if photo.shape[:2] == tuple(size):
        return photo
    shrinks = size[0] < photo.shape[0]
    return cv2.resize(photo, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def prepare(
    photo: np.ndarray,
    short_side: int,
    long_side: int,
    divisor: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[np.ndarray, PhotoGeometry]:
    """(H, W, 3) uint8 RGB -> pixels (1, 3, h, w) float32, (x - mean) / std per channel, and how the photo lies there."""
    size = resized_size(photo.shape[:2], short_side, long_side, divisor)
    return normalise(resize(photo, size), mean, std), PhotoGeometry(tuple(photo.shape[:2]), size, size)


def normalise(photo: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (1, 3, h, w) float32, (x - mean) / std per channel; in memory the channels stay last."""
    pixels = (photo.astype(np.float32) - np.float32(mean)) / np.float32(std)
    return pixels.transpose(2, 0, 1)[None]
