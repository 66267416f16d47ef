"""Photos in: open, turn, guard, resize, normalise, pad; and boxes back to the photo's pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 50_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Of all that Pillow knows, what photos come in: others start programs (EPS) or are hardly looked after."""
HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}

Photo = str | Path | bytes | Image.Image | np.ndarray

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
        return torch.tensor(scale, dtype=like.dtype) if isinstance(like, Tensor) else np.asarray(scale, dtype=like.dtype)


def open_photo(photo: Photo) -> np.ndarray:
    """Any picture -> (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Args:
        photo: a path, encoded bytes, a PIL image, or an (H, W, 3) uint8 RGB array.

    Raises:
        PhotoError: not a picture, empty, broken, or more than `MAX_PIXELS`.
    """
    if isinstance(photo, np.ndarray):
        return _check_array(photo)
    with _opened(photo) as image:
        return _decode(image)


def photo_size(photo: str | Path | bytes) -> tuple[int, int]:
    """(height, width) in pixels of what `open_photo` would give, by the file's header alone. Errors are those of `open_photo`."""
    with _opened(photo) as image:
        width, height = image.size
        # Pillow turns a TIFF by itself, and decodes a whole PNG in search of EXIF behind the pixels, where hardly any has some.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        turned = known and _orientation(image) >= 5
        return (width, height) if turned else (height, width)


@contextmanager
def _opened(photo: str | Path | bytes | Image.Image) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked; whatever goes wrong with it is a `PhotoError`."""
    if isinstance(photo, Image.Image):
        source: Image.Image | Path | io.BytesIO = photo
    elif isinstance(photo, bytes):
        source = io.BytesIO(photo)
    else:
        source = Path(photo)
        if not source.is_file():
            raise PhotoError(f"There is no picture called {source.name}: check the path.")
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


def _check_array(photo: np.ndarray) -> np.ndarray:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise PhotoError(
            f"Expected an array of shape (height, width, 3) and dtype uint8 in RGB order, got {photo.shape} {photo.dtype}."
        )
    _check_size(photo.shape[1], photo.shape[0])
    return photo


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise PhotoError("This picture is empty: it has no pixels.")
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"This picture is too large: {width} × {height} is {width * height / 1e6:.0f} megapixels, and the limit is "
            f"{MAX_PIXELS / 1e6:.0f}. Scale it down and send it again."
        )


def _decode(image: Image.Image) -> np.ndarray:
    # JPEG decodes at 1/2, 1/4 or 1/8 for free; detectors never need more than about 2,000 pixels of a side, but the
    # coordinates that go out are the original's, so the full size is kept.
    image.load()
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        peak = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray(np.clip(values * (255.0 / peak), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(canvas, rgba)
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


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(..., 3, H, W) RGB in 0..255 -> (x - mean) / std per channel, float32."""
    shape = (3, 1, 1)
    return (pixels.float() - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def prepare(
    photo: np.ndarray,
    short_side: int,
    long_side: int,
    divisor: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[Tensor, Tensor, PhotoGeometry]:
    """(H, W, 3) uint8 RGB -> pixels (1, 3, h, w), mask (1, h, w) bool with True = padding, and the geometry."""
    size = resized_size(photo.shape[:2], short_side, long_side, divisor)
    small = torch.from_numpy(np.ascontiguousarray(resize(photo, size))).permute(2, 0, 1)
    pixels = normalise(small, mean, std)[None]
    mask = torch.zeros(1, *size, dtype=torch.bool)
    return pixels, mask, PhotoGeometry(tuple(photo.shape[:2]), size, size)
