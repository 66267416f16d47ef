"""Small arrays as pictures in a figure."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

SIDE = 320
"""A picture smaller than this is enlarged by whole factors, so that no browser blurs its cells."""


def png_url(pixels: np.ndarray) -> str:
    """(h, w, 3) uint8 RGB -> a data URI of a PNG in which every pixel is a sharp square."""
    height, width = pixels.shape[:2]
    factor = max(1, -(-SIDE // max(height, width)))
    large = np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)
    done, data = cv2.imencode(".png", cv2.cvtColor(large, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"expected an (h, w, 3) uint8 picture, got {pixels.shape} {pixels.dtype}: no PNG can be made of it")
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


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
