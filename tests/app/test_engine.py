from dataclasses import replace

import numpy as np
import pytest

from app.engine import EXAMPLE_NAMES, EXAMPLES, ExpiredRun, RunStore
from litedetr.image import PhotoError
from tests.app.conftest import scene


def copies(run, count):
    return [replace(run, id=f"run {number}") for number in range(count)]


def test_the_store_drops_the_least_recently_used(run):
    store = RunStore(limit=3 * run.nbytes)
    first, second, third, fourth = copies(run, 4)
    for each in (first, second, third):
        store.put(each)
    assert store.get("run 0") is first  # now the second is the oldest
    store.put(fourth)
    assert "run 1" not in store
    assert all(name in store for name in ("run 0", "run 2", "run 3"))
    assert store.nbytes <= store.limit


def test_a_run_larger_than_the_store_is_kept_alone(run):
    store = RunStore(limit=1)
    for each in copies(run, 3):
        store.put(each)
    assert len(store) == 1
    assert "run 2" in store


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
    told = []
    again = engine.run(scene(330, 210), progress=told.append)
    assert told == ["backbone", *run.step_names]
    np.testing.assert_array_equal(again.detections.boxes, run.detections.boxes)
    assert not engine.detector.backbone._forward_pre_hooks


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
