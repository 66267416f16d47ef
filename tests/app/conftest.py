import numpy as np
import pytest
from PIL import Image

from app.run.run import Run
from app.run.state import ViewState
from tests.apart import run as run_apart
from tests.app import live
from tests.app.faults import last_event, until


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


@pytest.fixture(scope="session")
def url() -> str:
    """The address of the running page."""
    return live.address()


@pytest.fixture
def served_after(engine, url):
    """After the test the queue is empty, and a run is made."""
    yield
    until(lambda: len(engine.queue) == 0)
    assert engine.store.get(run_apart(last_event(url))["run"]).spared == ""


def scene(width: int, height: int) -> Image.Image:
    """Noise with two plain shapes in it."""
    pixels = np.random.default_rng(3).integers(90, 140, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 8 : width // 3] = (200, 40, 30)
    pixels[height // 2 : height - 20, width // 2 : width - 30] = (30, 60, 190)
    return Image.fromarray(pixels)
