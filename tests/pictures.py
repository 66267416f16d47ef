"""Pictures that tests draw."""

import numpy as np
from PIL import Image


def scene(width: int, height: int) -> Image.Image:
    """Noise with two plain shapes in it."""
    pixels = np.random.default_rng(3).integers(90, 140, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 8 : width // 3] = (200, 40, 30)
    pixels[height // 2 : height - 20, width // 2 : width - 30] = (30, 60, 190)
    return Image.fromarray(pixels)
