"""The heaviest points are those of the trace, ranked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.engine.jobs import Cancelled
from app.run.state import ViewState
from app.views import attended
from app.views.attended.heaviest import MOST, rank
from litedetr import Detector
from tests.app.views.small import small_run
from tests.small_models import KINDS

ALL = pytest.mark.parametrize("kind", KINDS)


def state_at(step="auto", **changes):
    return ViewState(**{"view": "attended", "step": step, "threshold": 0.0, "top": 40, **changes})


def points_of(drawing) -> list[dict]:
    """The samples of each panel, in the panels' order."""
    return [trace for trace in drawing["data"] if trace.get("meta") == trace["name"]]


def ranked(step, level) -> list[tuple[float, int, int, int]]:
    """All (weight, row, head, point) of a level, heaviest first."""
    weights = step.weights[:, :, level].tolist()
    flat = [
        (weight, row, head, point)
        for row, heads in enumerate(weights)
        for head, points in enumerate(heads)
        for point, weight in enumerate(points)
    ]
    return sorted(flat, reverse=True)


@ALL
@pytest.mark.parametrize("scale", ["auto", "S1", "S2"])
def test_the_heaviest_points_are_drawn_where_they_are(kind, scale):
    run = small_run(kind)
    for step in (run.trace.encoder_steps[0], run.trace.encoder_steps[-1], run.trace.decoder_steps[0]):
        level = 0 if scale == "auto" else step.scales.index(scale)
        best = ranked(step, level)
        drawn = points_of(attended.drawing(run, state_at(step.name, scale=scale)))[0]
        place, weights, rows, heads, points = drawn["customdata"].T
        np.testing.assert_allclose(weights, [entry[0] for entry in best[:40]], rtol=1e-5)
        assert place.tolist() == list(range(1, 41))
        asked = list(zip(rows.astype(int), heads.astype(int) - 1, points.astype(int) - 1, strict=True))
        assert len(set(asked)) == 40
        assert {entry[1:] for entry in best if entry[0] > best[40][0] * 1.0001} <= set(asked)  # those at the cut may tie
        for (row, head, point), x, y, weight in zip(asked, drawn["x"], drawn["y"], weights, strict=True):
            assert weight == pytest.approx(float(step.weights[row, head, level, point]), rel=1e-5)
            expected = run.to_photo(step.locations[row, head, level, point].numpy())
            np.testing.assert_allclose((x, y), expected, rtol=1e-4, atol=1e-3)
        numbers = attended.summary(run, state_at(step.name, scale=scale))
        total = sum(entry[0] for entry in best)
        assert numbers["of"] == len(best)
        assert numbers["held"][0] == pytest.approx(sum(entry[0] for entry in best[:40]) / total, rel=1e-4)


@ALL
def test_equal_weights_are_an_even_sample_of_the_same_points(kind):
    run = small_run(kind)
    step = run.trace.encoder_steps[-1]
    state = state_at(step.name, top=200)
    numbers = attended.summary(run, state)
    drawn = points_of(attended.drawing(run, state))[1]
    count = step.weights[:, :, 0].numel()
    assert numbers["held"][1] == pytest.approx(200 / count, rel=1e-3)
    assert set(drawn["customdata"][:, 1].tolist()) == {np.float32(1 / step.weights[0, 0].numel())}
    rows, heads = drawn["customdata"][:, 2], drawn["customdata"][:, 3]
    assert 60 < (rows < len(step.weights) / 2).sum() < 140
    assert set(heads.astype(int)) == set(range(1, 9))


def test_equal_weights_are_ranked_always_alike_and_evenly():
    weights = np.ones(3200, dtype=np.float32)
    weights[[7, 99]] = 2
    best = rank(weights, 102)
    assert set(best[:2].tolist()) == {7, 99}
    assert len(set(best.tolist())) == 102
    assert (rank(weights, 102) == best).all()
    assert (rank(weights, 50) == best[:50]).all()  # fewer are the first of more
    assert np.bincount(best[2:] // 320, minlength=10).min() >= 5
    assert np.bincount(best[2:] % 32, minlength=32).max() <= 8
    assert sorted(rank(weights, 9999).tolist()) == list(range(3200))


def test_share_inside_the_boxes_counts_every_point_once():
    run = small_run("H3L1")
    state = state_at("B2 all", threshold=0.2)
    numbers = attended.summary(run, state)
    boxes = run.detections.boxes[run.detections.scores >= 0.2]
    assert len(boxes)
    for place, drawn in enumerate(points_of(attended.drawing(run, state))):
        inside = total = 0.0
        for x, y, weight in zip(drawn["x"], drawn["y"], drawn["customdata"][:, 1], strict=True):
            total += weight
            inside += weight * any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in boxes)
        assert numbers["inside"][place] == pytest.approx(inside / total, abs=1e-4)
        beyond = (drawn["x"] < 0) | (drawn["y"] < 0) | (drawn["x"] > run.size[1]) | (drawn["y"] > run.size[0])
        assert numbers["outside"][place] == beyond.sum()
    none = attended.summary(run, state_at("B2 all", threshold=1.0))
    assert none["inside"] == [0.0, 0.0]
    assert none["covered"] == 0


def test_sizes_have_one_measure_for_both_photos():
    run = small_run("H3L1")
    drawn = points_of(attended.drawing(run, state_at("B1 all")))
    weights = np.concatenate([trace["customdata"][:, 1] for trace in drawn])
    sizes = np.concatenate([trace["marker"]["size"] for trace in drawn])
    assert (np.diff(sizes[np.argsort(weights)]) >= -1e-4).all()
    assert sizes.max() == pytest.approx(attended.LARGEST)


def test_the_curve_adds_up_the_heaviest():
    run = small_run("H2L2")
    step = run.trace.step("B1 all")
    (chart,) = attended.charts(run, state_at("B1 all", scale="S2"))
    own = chart["data"][0]
    best = [entry[0] for entry in ranked(step, 2)]
    for n, share in list(zip(own["x"], own["y"], strict=True))[::9]:
        assert share == pytest.approx(sum(best[:n]) / sum(best), rel=1e-3)


def test_no_more_points_than_the_photo_bears():
    run = small_run("H3L1")
    numbers = attended.summary(run, state_at("B2 all", top=100_000))
    assert numbers["top"] == MOST
    assert any(str(MOST) in note for note in numbers["notes"])


@pytest.mark.parametrize("step", ["B2 all", "B1 high", "decoder 1"])
def test_a_click_on_a_point_chooses_who_asked_for_it(step):
    run = small_run("H3L1")
    state = state_at(step)
    drawn = points_of(attended.drawing(run, state))[0]
    height, width = run.size
    index = next(i for i, (x, y) in enumerate(zip(drawn["x"], drawn["y"], strict=True)) if 0 < x < width and 0 < y < height)
    after = attended.pick(run, state, float(drawn["x"][index] / width), float(drawn["y"][index] / height))
    near = np.hypot(drawn["x"] - drawn["x"][index], drawn["y"] - drawn["y"][index]) < 1e-3
    rows = set(drawn["customdata"][near, 2].astype(int).tolist())
    assert after.view == "attended"
    if step.startswith("decoder"):
        assert after.query in rows
    else:
        who = attended.queries_of(run, run.trace.step(step))
        held = who.holding(after.point[0] * width, after.point[1] * height)
        assert held[list(rows)].any()
    rings = [trace for trace in attended.drawing(run, after)["data"] if trace["name"] == "asked"]
    assert len(rings) == 2
    assert len(rings[0]["x"])


def other_detector(key_aware: bool) -> Detector:
    torch.manual_seed(11)
    return Detector.from_preset(
        "lite-dino-mobilenet",
        short_side=96,
        long_side=128,
        queries=10,
        num_classes=3,
        key_aware=key_aware,
        schedule="H4L0-(1+1)x1",
    )


@pytest.mark.parametrize("key_aware", [True, False])
def test_a_second_model_fills_the_second_photo(key_aware):
    run = replace(small_run("H3L1"))  # of its own, with nothing computed yet
    state = state_at("B2 all", other="somebody/model", scale="S3")
    key = attended.job(run, state)
    assert key is not None
    assert attended.job(run, state_at()) is None
    waiting = attended.summary(run, state)
    assert "somebody/model" in waiting["notes"][0]
    detector, asked, told = other_detector(key_aware), [], []

    def detectors(source):
        asked.append(source)
        return detector

    run.extras.put(key, attended.work(run, state, detectors, lambda share, stage: told.append((share, stage))))
    assert asked == ["somebody/model"]
    assert list(dict.fromkeys(stage for _, stage in told))[:2] == ["backbone", "B1 all"]  # a long stage is told again
    assert all(0 <= share <= 1 for share, _ in told)
    trace = detector.predict(run.photo, threshold=0.0, trace=True).trace
    step = trace.encoder_steps[-1]  # it has no step of that name
    best = ranked(step, 1)
    own, other = points_of(attended.drawing(run, state))
    np.testing.assert_allclose(other["customdata"][:, 1], [entry[0] for entry in best[:40]], rtol=1e-4)
    assert (other["customdata"][:, 2] == -1).all()  # its queries are not this run's
    expected = trace.geometry.to_photo(step.locations[best[0][1], best[0][2], 1, best[0][3]].numpy())
    if best[0][0] > best[1][0]:
        np.testing.assert_allclose((other["x"][0], other["y"][0]), expected, rtol=1e-3, atol=1e-2)
    notes = " ".join(attended.summary(run, state)["notes"])
    assert ("by key" in notes) == key_aware
    alone = points_of(attended.drawing(run, state_at("B2 all", scale="S3")))[0]
    assert own["customdata"].tolist() == alone["customdata"].tolist()


def test_a_second_model_stops_when_nobody_waits():
    run, detector = replace(small_run("H3L1")), other_detector(True)

    def report(share, stage):
        if stage == "decoder 1":
            raise Cancelled

    with pytest.raises(Cancelled):
        attended.work(run, state_at(other="a/b"), lambda source: detector, report)
    assert not any(module._forward_pre_hooks for module in detector.modules())


def test_the_runs_own_model_is_no_second_one():
    run = replace(small_run("H3L1"), source="a/b")
    assert attended.job(run, state_at(other="a/b")) is None
    assert attended.job(run, state_at(other="own")) is not None
    assert attended.job(replace(small_run("H3L1")), state_at(other="own")) is None
    values = {value for control in attended.controls(run, state_at()) for value, _ in control.get("options", [])}
    assert "own" in values
    assert "a/b" not in values
