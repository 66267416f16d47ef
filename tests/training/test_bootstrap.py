"""AP on photographs drawn again, against pycocotools on a set that really has them more than once."""

import numpy as np
import pytest

from litedetr.training.bootstrap import average_precision, class_records, resampled
from litedetr.training.evaluation import measure

PHOTOS = 12


@pytest.fixture(scope="module")
def world() -> tuple[dict, list[dict]]:
    """Photographs with objects of three classes, crowds among them, and detections: near, far and of the wrong class."""
    chance = np.random.default_rng(3)
    annotations, results = [], []
    for image in range(1, PHOTOS + 1):
        for _ in range(chance.integers(0, 6)):
            box = np.concatenate([chance.uniform(0, 100, 2), chance.uniform(20, 90, 2)])
            category = int(chance.integers(1, 4))
            crowd = int(chance.random() < 0.1)
            annotations.append({"image_id": image, "category_id": category, "bbox": box.tolist(), "iscrowd": crowd})
            for _ in range(chance.integers(0, 3)):
                found = {"image_id": image, "bbox": (box + chance.normal(0, 6, 4)).tolist(), "score": float(chance.random())}
                results.append({**found, "category_id": category if chance.random() < 0.8 else 1})
    content = {
        "images": [{"id": image, "width": 200, "height": 200, "file_name": f"{image}.jpg"} for image in range(1, PHOTOS + 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(("person", "cat", "dog", "never"), start=1)],
    }
    return content, results


def _copied(content: dict, results: list[dict], times: np.ndarray) -> tuple[dict, list[dict], list[int]]:
    """The set with every photograph as often as it was drawn, under new ids; copies of one photograph side by side."""
    ids = [(image, 1000 * image + copy) for image, count in enumerate(times, start=1) for copy in range(count)]
    of = [{**entry, "image_id": new} for image, new in ids for entry in content["annotations"] if entry["image_id"] == image]
    found = [{**entry, "image_id": new} for image, new in ids for entry in results if entry["image_id"] == image]
    images = [{"id": new, "width": 200, "height": 200, "file_name": "x.jpg"} for _, new in ids]
    return {**content, "images": images, "annotations": of}, found, [new for _, new in ids]


def test_every_photograph_once_is_cocos_ap(world):
    content, results = world
    ids = list(range(1, PHOTOS + 1))
    expected = measure(content, results, ids).figures["AP"]
    assert 0.1 < expected < 0.9
    assert average_precision(class_records(content, results, ids), np.ones(PHOTOS)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_drawn_photographs_are_copies(world, seed):
    content, results = world
    times = np.bincount(np.random.default_rng(seed).integers(PHOTOS, size=PHOTOS), minlength=PHOTOS)
    expected = measure(*_copied(content, results, times)).figures["AP"]
    got = average_precision(class_records(content, results, list(range(1, PHOTOS + 1))), times)
    assert got == pytest.approx(expected, abs=1e-12)
    assert got != pytest.approx(measure(content, results, list(range(1, PHOTOS + 1))).figures["AP"], abs=1e-3)


def test_photographs_are_told_by_their_ids(world):
    content, results = world
    ids = list(range(PHOTOS, 0, -1))
    backwards = class_records(content, results, ids)
    only = np.zeros(PHOTOS)
    only[2] = 1  # the third of the list, whose id is ten
    assert average_precision(backwards, only) == pytest.approx(measure(content, results, [ids[2]]).figures["AP"], abs=1e-12)


def test_no_object_drawn(world):
    content, results = world
    assert average_precision(class_records(content, results, list(range(1, PHOTOS + 1))), np.zeros(PHOTOS)) == -1


def test_detectors_share_their_draws(world):
    content, results = world
    ids = list(range(1, PHOTOS + 1))
    fewer = [entry for number, entry in enumerate(results) if number % 5]
    records = [class_records(content, found, ids) for found in (results, fewer, results)]
    draws = resampled(records, rounds=20, seed=4)
    assert draws.shape == (20, 3)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 2])
    assert draws[:, 0].std() > 0
    assert (draws[:, 0] != draws[:, 1]).any()
    np.testing.assert_array_equal(draws, resampled(records, rounds=20, seed=4))
    assert (draws != resampled(records, rounds=20, seed=5)).any()
