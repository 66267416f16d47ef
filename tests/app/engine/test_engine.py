from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch

from app.engine.engine import EXAMPLE_NAMES, EXAMPLES
from app.engine.jobs import Cancelled
from app.engine.queue import Client
from app.engine.store import ExpiredRun, RunStore
from app.run import progress
from app.run.run import Extras
from app.run.state import ViewState
from app.views import VIEWS
from litedetr.image import PhotoError
from tests.pictures import scene


def copies(run, count):
    return [replace(run, id=f"run {number}") for number in range(count)]


def test_the_store_drops_the_least_recently_used(run):
    store = RunStore(limit=3 * run.nbytes + run.layers[1])
    first, second, third, fourth = copies(run, 4)
    for each in (first, second, third):
        store.put(each)
    assert store.get("run 0") is first  # now the second is the oldest
    store.put(fourth)
    assert "run 1" not in store
    assert all(name in store for name in ("run 0", "run 2", "run 3"))
    assert store.nbytes <= store.limit


def test_a_visitor_with_many_runs_gives_way_first(run):
    store = RunStore(limit=4 * run.nbytes + run.layers[1])
    mine, example, *yours = copies(run, 5)
    store.put(mine, Client("1.1.1.1", "me"))
    store.put(example)
    for each in yours:
        store.put(each, Client("1.1.1.1", "you"))
    assert [name in store for name in ("run 0", "run 1", "run 2", "run 3", "run 4")] == [True, True, False, True, True]


def test_neither_a_heavy_run_nor_invented_visitors_push_out_the_others(run):
    store = RunStore(limit=10 * run.nbytes + run.layers[1])
    *others, heavy = copies(run, 4)
    for number, each in enumerate(others):
        store.put(each, Client(f"2.2.2.{number}", "alone"))
    store.put(heavy, Client("1.1.1.1", "heavy"))
    heavy.extras.put("computed", bytes(7 * run.nbytes))
    store.trim()
    assert [each.id in store for each in (*others, heavy)] == [True, True, True, False]
    for number in range(10):
        store.put(replace(run, id=f"invented {number}"), Client("1.1.1.1", f"invented {number}"))
    assert all(each.id in store for each in others)
    assert "invented 9" in store
    assert len(store) == 10


def test_a_run_larger_than_the_store_is_kept_alone(run):
    store = RunStore(limit=1)
    for each in copies(run, 3):
        store.put(each)
    assert len(store) == 1
    assert "run 2" in store


def test_the_store_drops_what_nobody_looks_into(run):
    store = RunStore(keep=0)
    for each in copies(run, 2):
        store.put(each)
    store.keep = 3600
    assert store.expire() == 0
    assert len(store) == 2
    store.keep = 0
    assert store.expire() == 2
    assert len(store) == 0
    with pytest.raises(ExpiredRun):
        store.get("run 1")
    assert not store._used


@pytest.mark.parametrize("name", ["unknown", "", None, 3, ["x"], {"a": 1}])
def test_an_unknown_run_has_expired(name):
    with pytest.raises(ExpiredRun):
        RunStore().get(name)


def test_a_run_weighs_what_its_trace_weighs(run):
    assert run.trace.nbytes < run.nbytes < run.trace.nbytes + 1_000_000


def test_ids_cannot_be_guessed(engine, run):
    other = engine.run(scene(64, 64))
    assert other.id != run.id
    assert len(other.id) >= 24


def test_progress_names_every_stage_in_order_and_changes_nothing(engine, run):
    reported = []
    again = engine.run(scene(330, 210), report=reported.append)
    assert [event for event, _ in groupby(reported)] == [{"stage": name} for name in ("backbone", *run.step_names)]
    np.testing.assert_array_equal(again.detections.boxes, run.detections.boxes)
    assert not any(part._forward_pre_hooks for part in engine.detector.modules())


def test_a_long_stage_can_be_cancelled_between_its_parts(engine, monkeypatch):
    monkeypatch.setattr(progress, "PULSE", 0.0)
    reported = []

    def until_the_fifth(event):
        reported.append(event)
        if len(reported) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.run(scene(330, 210), report=until_the_fifth)
    assert reported == [{"stage": "backbone"}] * 5
    assert not any(part._forward_pre_hooks for part in engine.detector.modules())


def test_an_example_runs_once(engine):
    assert engine.example(EXAMPLE_NAMES[1]) is engine.example(EXAMPLE_NAMES[1])


def test_examples_are_small_and_named(engine):
    for name in EXAMPLE_NAMES:
        path = EXAMPLES / f"{name}.jpg"
        assert path.stat().st_size < 100_000
        assert name in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    with pytest.raises(PhotoError, match="choose one of"):
        engine.example("../../secret")


def test_detect_agrees_with_run(engine, run):
    found = engine.detect(scene(330, 210), threshold=0.0)
    np.testing.assert_allclose(found.scores, run.detections.scores, atol=1e-5)
    assert found.trace is None


def test_extras_count_their_bytes_and_are_bounded(run):
    mine = replace(run)
    assert mine.extras is not run.extras
    before = mine.nbytes
    mine.extras.put("field", {"a": np.zeros(1000, np.float32), "b": [torch.zeros(500, dtype=torch.float64)]})
    assert 8000 <= mine.nbytes - before < 8400
    assert mine.extras.memo("field", lambda: 1) is mine.extras.get("field")
    small = Extras(limit=10_000)
    for number in range(5):
        small.put(str(number), np.zeros(1000, np.float32))
    assert len(small) == 2
    assert small.nbytes <= small.limit
    assert small.get("4") is not None
    assert small.get("0") is None


def test_what_is_computed_from_a_run_counts_in_the_store(run):
    store = RunStore(limit=2 * run.nbytes + 1000)
    first, second = copies(run, 2)
    store.put(first)
    store.put(second)
    second.extras.put("field", np.zeros(10_000, np.float32))
    store.trim()
    assert "run 0" not in store
    assert "run 1" in store


def test_work_is_done_once_kept_and_can_be_cancelled(engine, run, monkeypatch):
    mine, done, state = replace(run), [], ViewState(view="mattered")

    def work(run, state, detectors, report):
        for share in (0.0, 0.5):
            report(share, f"part {share}")
        done.append(detectors().config.family)
        return np.ones(7)

    monkeypatch.setitem(VIEWS, "mattered", replace(VIEWS["mattered"], job=lambda *_: "mattered 1", work=work))

    def refuse(event):
        if event["share"]:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.compute(mine, state, refuse)
    assert not done
    reported = []
    assert engine.compute(mine, state, reported.append) == "mattered 1"
    assert engine.compute(mine, state, reported.append) == "mattered 1"
    assert done == ["dino"]
    assert [(event["share"], event["text"]) for event in reported] == [(0.0, ""), (0.0, "part 0.0"), (0.5, "part 0.5")]
    assert mine.extras.get("mattered 1").sum() == 7
    assert engine.compute(mine, ViewState(view="points"), refuse) is None
