"""Two encoders on one photo: matches, what each has alone, and the experiment with the same weights."""

from functools import cache

import numpy as np
import orjson
import pytest
import torch

from app.engine.engine import Engine
from app.run.model_list import FULL
from app.run.state import ViewState
from app.views import schedule, versus
from app.views.film.ledger import ledger
from app.views.versus.comparison import ModelResult, every_scale, matched
from litedetr import Detector
from tests.app.views.small import small_run
from tests.small_models import KINDS


@cache
def detector_of(kind: str) -> Detector:
    torch.manual_seed(5)
    return Detector(small_run(kind).config)


def result(boxes, scores, names, threshold=0.5) -> ModelResult:
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    return ModelResult("a", "H4L0-(1+1)x6", *arrays, tuple(names), threshold, 2.0, 1.0, 20.0, 10.0)


def test_each_detection_is_matched_once_with_the_best_of_its_class():
    left = result([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [80, 80, 90, 90]], [0.9, 0.8, 0.7, 0.2], ["cat"] * 4)
    right = result([[0, 0, 10, 9], [50, 50, 60, 60], [80, 80, 90, 90]], [0.9, 0.6, 0.9], ["cat", "dog", "cat"])
    assert matched(left, right, None) == [(1, 0, 1.0), (0, None, 0.0), (2, None, 0.0), (None, 1, 0.0), (None, 2, 0.0)]
    assert matched(left, right, 0.1)[1] == (3, 2, 1.0)
    assert matched(left, result([], [], []), None) == [(0, None, 0.0), (1, None, 0.0), (2, None, 0.0)]
    assert matched(result([], [], []), result([], [], []), None) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_is_drawn_and_can_be_sent(kind):
    run = small_run(kind)
    told = []
    for number, state in enumerate([ViewState(view="versus", threshold=0.1), ViewState(view="versus", other="own", lang="ko")]):
        for done in (False, True):
            if done and number == 0:
                run.extras.put(
                    versus.job(run, state), versus.work(run, state, lambda _: detector_of(kind), lambda *a: told.append(a))
                )
            sent = [
                versus.drawing(run, state),
                versus.summary(run, state),
                versus.controls(run, state),
                versus.charts(run, state),
            ]
            orjson.dumps(sent, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
            versus.VIEW.figure(run, state)
    assert len(told) == 4


def test_updating_every_scale_is_the_full_encoder_with_these_weights_and_leaves_the_detector_alone():
    detector = detector_of("H3L1")
    before = detector.encoder.steps
    pixels = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        plain = detector(pixels).logits
        other = every_scale(detector)
        full = other(pixels).logits
        again = detector(pixels).logits
    assert detector.encoder.steps == before
    assert torch.equal(plain, again)
    assert not torch.allclose(plain, full)
    assert all(step.query_levels == (0, 1, 2, 3) for step in other.encoder.steps)
    assert all(a is b for a, b in zip(other.parameters(), detector.parameters(), strict=True))


def test_a_full_encoder_against_itself_finds_the_same():
    run, state = small_run("full, keys"), ViewState(view="versus", threshold=0.0)
    result = versus.work(run, state, lambda _: detector_of("full, keys"), lambda *_: None)
    assert np.array_equal(result["left"].boxes, result["right"].boxes)
    run.extras.put(versus.job(run, state), result)
    numbers = versus.summary(run, state)
    assert {pair[2] > 0.999 for pair in numbers["pairs"]} == {True}
    assert result["left"].gmacs == pytest.approx(run.cost.total)


def test_boxes_are_in_the_photos_pixels():
    run, state = small_run("H2L2"), ViewState(view="versus")
    result = versus.work(run, state, lambda _: detector_of("H2L2"), lambda *_: None)
    height, width = run.size
    assert result["left"].boxes.min() >= 0
    assert (result["left"].boxes.reshape(-1, 2).max(0) <= [width, height]).all()
    assert result["left"].encoder_gmacs == pytest.approx(run.cost.encoder)
    assert result["right"].encoder_gmacs > run.cost.encoder
    assert all(r.milliseconds > r.encoder_ms > 0 for r in result.values())


def test_the_full_encoder_is_one_in_all_views_or_the_difference_is_said():
    run = small_run("H3L1")
    full = schedule.VIEW.summary(run, ViewState(view="schedule"))["full"]
    assert sum(entry.full for entry in ledger(run) if entry.name[0] == "B") == pytest.approx(full)
    notes = versus.VIEW.summary(run, ViewState(view="versus"))["notes"]
    assert any(f"plain attention: {full:.2f} GMACs" in note for note in notes)


def test_the_embedded_model_is_compared_with_its_full_encoder():
    """Where nobody chose, and where it is chosen; the same weights with every scale updated stay a choice."""
    run = Engine("embedded").example("motorcycle")
    state = ViewState(view="versus")
    (choice,) = versus.controls(run, state)
    assert [value for value, _ in choice["options"]][:3] == [FULL, versus.EVERY, "embedded/plain"]
    assert choice["value"] == FULL
    assert "trained for it" in versus.summary(run, state)["notes"][0]
    result = versus.work(run, state, lambda source: Detector.from_pretrained(source or "embedded"), lambda *_: None)
    run.extras.put(versus.job(run, state), result)
    assert result["left"].schedule == run.config.schedule
    assert result["right"].schedule == "H4L0-(1+1)x6"
    assert result["right"].encoder_gmacs > 1.5 * result["left"].encoder_gmacs
    assert "Full encoder, trained alike" in versus.summary(run, state)["caption"]
    assert "motorcycle" in result["right"].names[: len(result["right"].above(None))]
    same = state.with_(other=versus.EVERY)
    assert versus.job(run, same) != versus.job(run, state)
    assert "Nobody trained the weights for that" in versus.summary(run, same)["notes"][0]
