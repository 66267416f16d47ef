import numpy as np
import pytest
from PIL import Image

from app.run.run import Run
from app.run.state import ViewState
from tests.app import live


@pytest.fixture(scope="session")
def engine():
    return live.engine()


@pytest.fixture(scope="session")
def run(engine) -> Run:
    """A wide photo, so that the network's input is padded below."""
    return engine.run(scene(330, 210), "scene.png")


@pytest.fixture(scope="session")
def everything() -> ViewState:
    """A state that shows every guess."""
    return ViewState(threshold=0.0)


def scene(width: int, height: int) -> Image.Image:
    """Noise with two plain shapes in it."""
    pixels = np.random.default_rng(3).integers(90, 140, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 8 : width // 3] = (200, 40, 30)
    pixels[height // 2 : height - 20, width // 2 : width - 30] = (30, 60, 190)
    return Image.fromarray(pixels)
