"""What scores mean: matching, the best threshold, bins, near-duplicates."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from litedetr.training.calibration import calibrate, reliability_svg


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


def test_nothing_found():
    got = calibrate({"annotations": [wanted(1, 5, [0, 0, 10, 10])]}, [], [1])
    assert (got.threshold, got.f1, got.bins, got.doubled) == (1.0, 0.0, (), 0.0)


def test_the_picture_shows_every_bin_where_it_is():
    content = {"annotations": [wanted(1, 5, [0, 0, 10, 10])]}
    got = calibrate(content, [found(1, 5, 0.75, [0, 0, 10, 10]), found(1, 5, 0.25, [90, 90, 10, 10])], [1])
    circles = [n for n in ElementTree.fromstring(reliability_svg(got)).iter() if n.tag.endswith("circle")]
    assert [(float(c.get("cx")), float(c.get("cy"))) for c in circles] == [(80, 320), (240, 0)]
