"""What scores mean: matching, the best threshold, bins, near-duplicates."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from litedetr import Detector
from litedetr.training.calibration import Calibration, Rescaling, calibrate, fit_rescaling, reliability_svg, write_calibration
from tests.training.conftest import tiny_detector


def found(image: int, category: int, score: float, box: list[float]) -> dict:
    return {"image_id": image, "category_id": category, "score": score, "bbox": box}


def wanted(image: int, category: int, box: list[float], crowd: int = 0) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}


def test_each_object_makes_one_detection_right():
    content = {"annotations": [wanted(1, 5, [0, 0, 10, 10]), wanted(1, 5, [50, 0, 10, 10]), wanted(2, 7, [0, 0, 8, 8])]}
    results = [
        found(1, 5, 0.9, [0, 0, 10, 10]),  # right
        found(1, 5, 0.8, [0, 0, 10, 9]),  # the same object again: wrong, and a near-duplicate
        found(1, 5, 0.7, [50, 0, 10, 10]),  # right
        found(2, 5, 0.6, [0, 0, 8, 8]),  # another class: wrong
        found(2, 7, 0.2, [0, 0, 8, 5]),  # right: IoU 0.625
        found(2, 7, 0.1, [0, 4, 8, 8]),  # IoU 1/3: wrong
    ]
    got = calibrate(content, results, [1, 2])
    # F1 when the first k are kept: 2 * hits / (k + 3)
    expected = [2 / 4, 2 / 5, 4 / 6, 4 / 7, 6 / 8, 6 / 9]
    assert got.threshold == 0.2
    assert got.f1 == pytest.approx(max(expected))
    assert (got.precision, got.recall) == (pytest.approx(3 / 5), 1.0)
    assert got.doubled == pytest.approx(1 / 5)
    assert [b.count for b in got.bins] == [1, 1, 1, 1, 1, 1]
    assert [b.right for b in got.bins] == [0, 1, 0, 1, 0, 1]
    assert got.error == pytest.approx(np.mean([0.1, 0.8, 0.6, 0.3, 0.8, 0.1]))


def test_detections_in_a_crowd_count_for_nothing_and_other_pictures_are_left_out():
    content = {
        "annotations": [wanted(1, 5, [0, 0, 100, 100], crowd=1), wanted(1, 5, [200, 0, 10, 10]), wanted(3, 5, [0, 0, 5, 5])]
    }
    got = calibrate(content, [found(1, 5, 0.9, [10, 10, 10, 10]), found(1, 5, 0.5, [200, 0, 10, 10])], [1])
    assert (got.threshold, got.f1, got.recall) == (0.5, 1.0, 1.0)
    assert sum(b.count for b in got.bins) == 1


def test_equal_scores_are_kept_or_dropped_together():
    content = {"annotations": [wanted(1, 5, [0, 0, 10, 10])]}
    got = calibrate(content, [found(1, 5, 0.5, [0, 0, 10, 10]), found(1, 5, 0.5, [90, 90, 10, 10])], [1])
    assert got.precision == 0.5


@pytest.mark.parametrize(
    ("early", "late", "expected"),
    [
        (0, 4, (0.6, 10 / 14)),  # where F1 is best, precision is high enough
        (0, 6, (0.9, 1.0)),  # it is not
        (8, 6, (0.6, 10 / 24)),  # nor is it at any higher score: best F1 stays
    ],
)
def test_the_default_threshold(early, late, expected):
    objects = [wanted(1, 5, [20 * i, 0, 10, 10]) for i in range(10)]
    right = [found(1, 5, 0.9 if i < 6 else 0.6, [20 * i, 0, 10, 10]) for i in range(10)]
    wrong = [found(1, 5, 0.95, [20 * i, 500, 10, 10]) for i in range(early)]
    wrong += [found(1, 5, 0.6, [20 * i, 900, 10, 10]) for i in range(late)]
    got = calibrate({"annotations": objects}, right + wrong, [1])
    assert got.threshold == 0.6
    assert (got.default.threshold, got.default.precision) == (expected[0], pytest.approx(expected[1]))
    assert got.default.recall == (0.6 if expected[0] == 0.9 else 1.0)


def test_nothing_found():
    got = calibrate({"annotations": [wanted(1, 5, [0, 0, 10, 10])]}, [], [1])
    assert (got.threshold, got.f1, got.bins, got.doubled) == (1.0, 0.0, (), 0.0)


def test_the_picture_shows_every_bin_where_it_is():
    content = {"annotations": [wanted(1, 5, [0, 0, 10, 10])]}
    got = calibrate(content, [found(1, 5, 0.75, [0, 0, 10, 10]), found(1, 5, 0.25, [90, 90, 10, 10])], [1])
    circles = [n for n in ElementTree.fromstring(reliability_svg(got)).iter() if n.tag.endswith("circle")]
    assert [(float(c.get("cx")), float(c.get("cy"))) for c in circles] == [(80, 320), (240, 0)]


def overconfident(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose logits are twice what they should be and 0.7 too high, and whether each is right."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-1.5, 1.5, count)
    return 1 / (1 + np.exp(-(2 * true + 0.7))), rng.random(count) < 1 / (1 + np.exp(-true))


def calibrated(count: int) -> Calibration:
    """Of that many overconfident detections that do not touch."""
    scores, right = overconfident(count)
    boxes = [[20 * i, 0, 10, 10] for i in range(count)]
    content = {"annotations": [wanted(1, 5, box) for box, here in zip(boxes, right, strict=True) if here]}
    return calibrate(content, [found(1, 5, float(score), box) for score, box in zip(scores, boxes, strict=True)], [1])


def test_rescaled_scores_are_the_share_that_is_right():
    scores, right = overconfident(100_000)
    rescaling = fit_rescaling(scores, right)
    assert rescaling.scale == pytest.approx(0.5, abs=0.02)
    assert rescaling.shift == pytest.approx(-0.35, abs=0.02)
    now = rescaling(scores)
    assert (np.argsort(now, kind="stable") == np.argsort(scores, kind="stable")).all()
    for low in (0.1, 0.4, 0.7):
        rows = (now >= low) & (now < low + 0.1)
        assert abs(now[rows].mean() - right[rows].mean()) < 0.015
        rows = (scores >= low) & (scores < low + 0.1)
        assert abs(scores[rows].mean() - right[rows].mean()) > 0.02


def test_scores_without_a_meaning_to_find_stay():
    scores = np.linspace(0.1, 0.9, 50)
    for right in (np.zeros(50, bool), np.ones(50, bool), scores < 0.5):  # nothing, everything, the wrong way round
        assert fit_rescaling(scores, right) == Rescaling()
    assert np.allclose(Rescaling()(scores), scores)
    few = fit_rescaling(np.array([0.2, 0.8]), np.array([False, True]))  # told apart without a mistake, and still finite
    assert 0 < few.scale < 10


def test_a_calibration_tells_what_it_would_be_after_rescaling():
    got = calibrated(4000)
    assert got.rescaled.error < 0.03 < got.error
    assert (got.rescaled.f1, got.rescaled.recall) == (pytest.approx(got.f1), pytest.approx(got.recall))
    assert got.rescaled.threshold == pytest.approx(float(got.rescaling(np.array(got.threshold))))
    times = f"times {got.rescaling.scale:.3f} {got.rescaling.shift:+.3f} (--calibrate does that; on the pictures it is fitted on)"
    assert f"{times}: calibration error 0.0" in got.table()


def test_what_is_fitted_on_half_of_the_pictures_is_reported_of_the_others():
    scores, right = overconfident(4000)
    right[1::2] = np.random.default_rng(5).random(2000) < scores[1::2]  # there the scores mean what they say
    content = {"annotations": [wanted(image, 5, [0, 0, 10, 10]) for image in np.flatnonzero(right).tolist()]}
    got = calibrate(content, [found(image, 5, float(score), [0, 0, 10, 10]) for image, score in enumerate(scores)], range(4000))
    first = fit_rescaling(scores[::2], right[::2])
    assert got.rescaling == first, "fitted where they do not"
    assert got.rescaled.held_out
    assert got.rescaled.error > 0.05, "and found wrong on the others"
    assert sum(b.count for b in got.rescaled.bins) == 2000
    shown = first(scores[1::2]) >= got.rescaled.default.threshold
    assert got.rescaled.default.precision == pytest.approx(right[1::2][shown].mean())
    assert "fitted on every second picture, on the others" in got.table()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_are_rescaled_in_their_own_precision(dtype, tmp_path):
    tiny_detector(dense_head=False).save_pretrained(tmp_path, dtype=dtype)
    got = calibrated(2000)
    size = (tmp_path / "model.safetensors").stat().st_size
    pixels, before = torch.rand(1, 3, 128, 128), Detector.from_pretrained(tmp_path)
    write_calibration(tmp_path, got)
    after = Detector.from_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size == size
    assert after.config.threshold == pytest.approx(got.rescaled.default.threshold, abs=0.0101)
    assert got.rescaled.default.threshold <= after.config.threshold
    with torch.inference_mode():
        one, other = before.eval()(pixels), after.eval()(pixels)
    assert torch.equal(one.boxes, other.boxes)
    expected = got.rescaling(one.logits.sigmoid().double().numpy())
    assert np.abs(other.logits.sigmoid().numpy() - expected).max() < (1e-6 if dtype == torch.float32 else 2e-3)
    assert np.abs(one.logits.sigmoid().numpy() - expected).max() > 5e-3
