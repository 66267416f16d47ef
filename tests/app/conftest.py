import pytest

from app.run.run import Run
from app.run.state import ViewState
from tests.apart import run as run_apart
from tests.app import live
from tests.app.faults import last_event, until
from tests.pictures import scene


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
