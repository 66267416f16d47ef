"""Small arrays as pictures in a figure."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

SIDE = 320
"""A picture smaller than this is enlarged by whole factors, so that no browser blurs its cells."""


def png_url(pixels: np.ndarray) -> str:
    """(h, w, 3) uint8 RGB -> a data URI of a PNG in which every pixel is a sharp square."""
    height, width = pixels.shape[:2]
    factor = max(1, -(-SIDE // max(height, width)))
    large = np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "PNG", compress_level=6)  # OpenCV's own choice is six times as large for such squares
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture(source: str, extent: tuple[float, float], axes: tuple[str, str] = ("x", "y"), opacity: float = 1.0) -> dict[str, Any]:
    """A layout image with its top left corner at 0, 0, `extent` (width, height) large on the axes."""
    return {
        "source": source,
        "xref": axes[0],
        "yref": axes[1],
        "x": 0,
        "y": 0,
        "sizex": extent[0],
        "sizey": extent[1],
        "sizing": "stretch",
        "layer": "below",
        "opacity": opacity,
    }
