"""A Hub that is down, slow or dying, and a full disk, seen from the running page: the own model goes on in every case."""

import asyncio
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from app.engine.models import Models
from app.i18n import say
from litedetr.weights import WeightsError
from tests.apart import run as run_apart
from tests.app.faults import close_tab, full_disk, last_event, until
from tests.hub.conftest import CHUNK, point_at, read
from tests.hub.server import Hub
from tests.load.photos import photo
from tests.load.visitor import Visitor, Waiting
from tests.small_models import small

NAME = "owner/tiny"

pytestmark = pytest.mark.usefixtures("served_after")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    small("lite-dino-mobilenet").save_pretrained(folder)
    return read(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub()
    point_at(hub.url, tmp_path / "cache", monkeypatch)
    yield hub
    hub.close()


@pytest.fixture(autouse=True)
def forgotten(engine):
    """The model is not in memory before a test, and nobody waits for it after."""
    engine.models._loaded.pop(NAME, None)
    yield
    until(lambda: not engine.models._loading)


def taken_over(engine, event: dict) -> str:
    """The sentence that says why the page's own model made the run."""
    assert engine.store.get(event["run"]).source == ""
    return event["refused"]


def test_a_hub_that_is_down(engine, url, hub, tmp_path, monkeypatch):
    hub.broken = True
    assert "error 503" in taken_over(engine, run_apart(last_event(url, model=NAME)))
    gone = Hub()
    gone.close()
    point_at(gone.url, tmp_path / "cache", monkeypatch)
    assert "cannot be reached" in taken_over(engine, run_apart(last_event(url, model=NAME)))


def test_a_hub_that_dies_in_mid_download(engine, url, hub, files):
    repo = hub.add(NAME, files, dies_after=5 * CHUNK)
    assert "broke off after 20,480 of" in taken_over(engine, run_apart(last_event(url, model=NAME)))
    repo.dies_after = None
    assert engine.store.get(run_apart(last_event(url, model=NAME))["run"]).source == NAME


def test_a_slow_hub_keeps_only_who_asked_for_it(engine, url, hub, files):
    repo = hub.add(NAME, files, gate=threading.Event())

    async def visits():
        async with Visitor(url) as patient, Visitor(url) as hasty:
            jobs = []
            for visitor in (patient, hasty):
                file = await visitor.upload(photo(1, 160), "a.jpg")
                jobs.append(asyncio.create_task(Waiting().follow(visitor.analyse(file, model=NAME))))
            await asyncio.to_thread(until, lambda: NAME in engine.models._loading and engine.models._loading[NAME].waiting == 2)
            assert engine.store.get((await last_event(url))["run"]).source == ""  # others are served meanwhile
            await hasty.ask("cancel", visitor=hasty.name, ticket=hasty.ticket)
            assert (await jobs[1]).last == {"ticket": 1, "cancelled": True}
            assert not jobs[0].done()
            repo.gate.set()
            return (await jobs[0]).last

    assert engine.store.get(run_apart(visits())["run"]).source == NAME


def test_a_download_that_nobody_waits_for_ends(engine, url, hub, files):
    repo = hub.add(NAME, files, gate=threading.Event())

    async def leave():
        async with Visitor(url) as visitor:
            file = await visitor.upload(photo(1, 160), "a.jpg")
            reading = asyncio.create_task(Waiting().follow(visitor.analyse(file, model=NAME)))
            await asyncio.to_thread(until, lambda: NAME in engine.models._loading)
            await close_tab(reading)
            await asyncio.to_thread(until, lambda: NAME not in engine.models._loading)

    run_apart(leave())
    repo.gate.set()
    until(lambda: engine.models._slots._value == 2)
    assert NAME not in engine.models


def test_a_full_disk_while_a_model_comes(engine, url, hub, files, tmp_path):
    hub.add(NAME, files)
    with full_disk(len(files["model.safetensors"]) // 2):
        sentence = taken_over(engine, run_apart(last_event(url, model=NAME)))
    assert "no room for model.safetensors of owner/tiny on this machine's disk" in sentence
    assert str(tmp_path) not in sentence
    assert engine.store.get(run_apart(last_event(url, model=NAME))["run"]).source == NAME


def test_a_full_disk_while_a_photo_comes(url):
    async def visit():
        async with Visitor(url) as visitor:
            answer = await visitor.http.post("/gradio_api/upload", files={"files": ("a.jpg", photo(7))})
            return answer.status_code, answer.text

    with full_disk(1000):
        status, text = run_apart(visit())
    assert status == 507
    assert json.loads(text)["detail"] == "There is no room for it on this machine now: try again in a minute."
    assert say("en", "error.upload") != say("ko", "error.upload")  # what the page shows then


def test_a_visitors_model_has_limits_and_a_cache_of_its_own(hub, files, monkeypatch):
    hub.add(NAME, files)
    monkeypatch.setenv("LITEDETR_LARGEST_MB", "0.001")
    models = Models("embedded")
    with pytest.raises(WeightsError, match=r"expected a model of at most 0 MB.*LITEDETR_LARGEST_MB, LITEDETR_LARGEST_GMACS or"):
        models.get(NAME)
    assert [line.rsplit("/")[-1] for line in hub.asked if line.startswith("GET")] == ["config.json"]
    monkeypatch.setenv("LITEDETR_LARGEST_MB", "100")
    told = []
    found = models.get(NAME, lambda done, total: told.append(done)).predict(np.zeros((40, 60, 3), np.uint8), threshold=0.0)
    assert len(found) > 0
    assert max(told) >= CHUNK
    assert (Path(constants.HF_HUB_CACHE).with_name("litedetr-visitors") / "models--owner--tiny").is_dir()
    assert "models--owner--tiny" not in {folder.name for folder in Path(constants.HF_HUB_CACHE).glob("*")}
