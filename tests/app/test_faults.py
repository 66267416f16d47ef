"""What goes wrong on a running page, over real HTTP: who is hit hears a sentence, and the next one is served as ever."""

import asyncio
import time

import numpy as np
import pytest
import torch

from app.engine.time_limit import Deadline
from app.i18n import say
from tests.apart import run as run_apart
from tests.app import live
from tests.app.faults import PHOTO, allocate, close_tab, fail, half_way, hooked, kill, last_event, on_the_gpu, there, until
from tests.load.visitor import Visitor, Waiting

pytestmark = pytest.mark.usefixtures("served_after")


def test_a_second_click_ends_the_first_run_half_way(engine, url):
    async def clicks():
        async with Visitor(url) as visitor:
            file = await visitor.upload(PHOTO, "a.jpg")
            with half_way(engine) as (reached, go, through):
                first = asyncio.create_task(Waiting().follow(visitor.analyse(file)))
                await there(reached)
                await visitor.ask("cancel", visitor=visitor.name, ticket=visitor.ticket)
                go.set()
                assert (await first).last["cancelled"]
            return through

    held = len(engine.store)
    assert run_apart(clicks()) == []
    assert len(engine.store) == held


def test_a_closed_tab_ends_its_run_half_way(engine, url):
    async def leave():
        async with Visitor(url) as visitor:
            file = await visitor.upload(PHOTO, "a.jpg")
            with half_way(engine) as (reached, go, through):
                reading = asyncio.create_task(Waiting().follow(visitor.analyse(file)))
                await there(reached)
                await close_tab(reading)
                await asyncio.to_thread(until, lambda: not any(live.page()._queue.active_jobs))  # the server knows
                go.set()
            return through

    assert run_apart(leave()) == []


def test_a_closed_tab_leaves_the_queue(engine, url):
    async def leave():
        async with Visitor(url) as visitor:
            file = await visitor.upload(PHOTO, "a.jpg")
            with engine.queue.turn(alone=True):
                reading = asyncio.create_task(Waiting().follow(visitor.analyse(file)))
                await asyncio.to_thread(until, lambda: len(engine.queue) == 2)
                await close_tab(reading)
                await asyncio.to_thread(until, lambda: len(engine.queue) == 1)

    run_apart(leave())


@pytest.mark.parametrize(("fault", "lang"), [(fail, "en"), (kill, "ko")])
def test_a_model_that_fails_or_is_killed(engine, url, fault, lang):
    with hooked(engine.detector.decoder.layers[0], fault):
        assert run_apart(last_event(url, lang=lang))["error"] == say(lang, "error.inside")


@pytest.mark.parametrize(("fault", "lang", "words"), [(allocate, "en", "at half the size"), (on_the_gpu, "ko", "절반 크기")])
def test_too_little_memory_for_the_whole_photo(engine, url, fault, lang, words):
    def large(given) -> None:
        if max(given[0].shape[-2:]) > live.SIDE // 2:
            fault(given)

    async def visit():
        async with Visitor(url) as visitor:
            file = await visitor.upload(PHOTO, "a.jpg")
            event = (await Waiting().follow(visitor.analyse(file, lang=lang))).last
            return await visitor.ask("open_run", run=event["run"], state={"lang": lang})

    with hooked(engine.detector.backbone, large):
        opened = run_apart(visit())
    assert words in opened["note"]
    run = engine.store.get(opened["run"])
    assert run.spared == "smaller"
    assert max(run.trace.geometry.padded) <= live.SIDE // 2
    assert run.trace.steps[0].rebuild_error(range(5)) < 1e-4


def test_a_gpu_too_small_for_any_size(engine, url, monkeypatch):
    """The model runs on the CPU, with the same result; both ways that the GPU was tried fail as PyTorch fails."""

    class OnGpu(type(engine.detector)):
        device = torch.device("cuda")

        def predict(self, *arguments, **options):
            on_the_gpu(None)

    small = object.__new__(OnGpu)
    small.__dict__ = engine.detector.__dict__
    monkeypatch.setattr(engine.gpu, "own", lambda *_: small)
    run = engine.store.get(run_apart(last_event(url))["run"])
    monkeypatch.undo()
    assert run.spared == "cpu"
    same = engine.run(PHOTO)
    np.testing.assert_allclose(run.detections.boxes, same.detections.boxes, atol=0.1)
    assert say("ko", "note.cpu") != say("en", "note.cpu")


def test_a_run_that_takes_too_long_is_ended(engine, url, monkeypatch):
    monkeypatch.setattr(engine.pace, "deadline", lambda gmacs: Deadline(0.2))
    monkeypatch.setattr(engine.models, "trusts", lambda source: False)
    monkeypatch.setattr("app.engine.models.admit", lambda source: None)
    with hooked(engine.detector.decoder.layers[-1], lambda _: time.sleep(0.3)):  # no stage comes after: it ends within it
        assert run_apart(last_event(url, lang="ko"))["error"] == say("ko", "error.slow", seconds=0)


def test_too_little_memory_for_any_photo(engine, url):
    with hooked(engine.detector.backbone, allocate):
        assert run_apart(last_event(url, lang="ko"))["error"] == say("ko", "error.memory") != say("en", "error.memory")
