"""Photos in: open, resize, normalise, pad; and boxes back to the photo's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from litedetr.photos import decode
from litedetr.photos.decode import Encoded, Opened, PhotoError, PhotoHeader, photo_header, photo_size

__all__ = [
    "Opened", "Photo", "PhotoError", "PhotoGeometry", "PhotoHeader", "normalise", "open_photo", "open_small", "photo_header",
    "photo_size", "prepare", "resize", "resized_size",
]  # fmt: skip


@runtime_checkable
class Tensor(Protocol):
    """A tensor of PyTorch, which is not needed to know one."""

    def detach(self) -> Tensor: ...
    def cpu(self) -> Tensor: ...
    def is_floating_point(self) -> bool: ...
    def float(self) -> Tensor: ...
    def numpy(self) -> np.ndarray: ...


Photo = Encoded | np.ndarray | Tensor | Opened


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


def open_photo(photo: Photo, upright: bool = True) -> np.ndarray:
    """Any picture -> (H, W, 3) uint8 RGB; the same bytes give the same pixels wherever they are opened.

    Transparent parts become white. A grey picture of more than 8 bits, or of floats, has its own range of finite values stretched
    from black to white, and a warning says so.

    Args:
        photo: a path, encoded bytes, a file object, a PIL image; or the pixels in RGB order as an array (H, W, 3) or a tensor
            (3, H, W), either of which may be the other way round, grey (H, W) or with alpha: 0 to 255, or floats in 0 to 1.
        upright: turn by the EXIF orientation; else as stored (a TIFF is always upright).

    Raises:
        PhotoError: not a picture, empty, broken, or more than `litedetr.photos.decode.MAX_PIXELS`.
    """
    if isinstance(photo, Tensor):
        return decode.from_pixels(_to_numpy(photo), channels_first=True)
    return decode.open_photo(photo, upright)


def open_small(photo: Photo) -> Opened:
    """`open_photo` for detectors: a large JPEG is decoded at a part of its size, see `litedetr.photos.decode.open_small`."""
    return decode.open_small(open_photo(photo) if isinstance(photo, Tensor) else photo)


def _to_numpy(photo: Tensor) -> np.ndarray:
    photo = photo.detach().cpu()
    return (photo.float() if photo.is_floating_point() else photo).numpy()  # NumPy has no bfloat16


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
    whole = min(photo.shape[0] // size[0], photo.shape[1] // size[1]) // 2
    if whole > 1 and photo.shape[0] % whole == photo.shape[1] % whole == 0:  # averages of whole pixels cost a fraction
        photo = cv2.resize(photo, (photo.shape[1] // whole, photo.shape[0] // whole), interpolation=cv2.INTER_AREA)
    shrinks = size[0] < photo.shape[0]
    return cv2.resize(photo, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def prepare(
    photo: np.ndarray | Opened,
    short_side: int,
    long_side: int,
    divisor: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[np.ndarray, PhotoGeometry]:
    """(H, W, 3) uint8 RGB -> pixels (1, 3, h, w) float32, (x - mean) / std per channel, and how the photo lies there."""
    opened = open_small(photo)
    size = resized_size(opened.size, short_side, long_side, divisor)
    return normalise(resize(opened.pixels, size), mean, std), PhotoGeometry(opened.size, size, size)


def normalise(photo: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (1, 3, h, w) float32, (x - mean) / std per channel; in memory the channels stay last."""
    pixels = (photo.astype(np.float32) - np.float32(mean)) / np.float32(std)
    return pixels.transpose(2, 0, 1)[None]
