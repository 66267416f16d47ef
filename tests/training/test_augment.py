"""Boxes stay on their pixels whatever is done to a picture."""

from dataclasses import replace

import numpy as np
import pytest

from litedetr.training.augment import (
    NONE,
    AugmentSettings,
    Sample,
    augment,
    colour,
    crop,
    fit,
    flip,
    mixup,
    mosaic,
    paste_object,
    towards_shape,
    zoom_out,
)

COLOURS = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=np.uint8)
ALL = AugmentSettings(colour=0)


def painted(rng: np.random.Generator, first: int = 0, width: int = 240, height: int = 180) -> Sample:
    """Two rectangles of pure colours that do not touch; a rectangle's colour is its label."""
    image = np.full((height, width, 3), 90, dtype=np.uint8)
    boxes, labels = [], np.array([first, first + 1])
    for place, label in enumerate(labels):
        column = place * width // 2
        w, h = rng.integers(30, 100), rng.integers(30, 120)
        x, y = column + rng.integers(2, width // 2 - w - 1), rng.integers(0, height - h)
        image[y : y + h, x : x + w] = COLOURS[label]
        boxes.append([x, y, x + w, y + h])
    return Sample(image, np.array(boxes, dtype=np.float32), labels)


def found(image: np.ndarray, label: int, box: np.ndarray) -> np.ndarray:
    """The extent of a colour's pixels within two pixels around a box."""
    left, top = np.maximum(np.floor(box[:2] - 2).astype(int), 0)
    part = image[top : int(np.ceil(box[3] + 2)), left : int(np.ceil(box[2] + 2))].astype(int)
    close = np.abs(part - COLOURS[label].astype(int)).sum(-1) < 170
    rows, columns = np.nonzero(close)
    return np.array([columns.min() + left, rows.min() + top, columns.max() + 1 + left, rows.max() + 1 + top])


def check(sample: Sample, off: float = 1.6) -> None:
    width, height = sample.size
    assert (sample.boxes[:, :2] >= 0).all()
    assert (sample.boxes[:, 2:] <= [width, height]).all()
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        assert np.abs(found(sample.image, int(label), box) - box).max() <= off, (box, label)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "settings",
    [ALL, replace(ALL, crop=1.0), replace(ALL, zoom_out=1.0, mosaic=0), replace(ALL, mosaic=1.0), NONE],
    ids=["mixed", "crop", "zoom out", "mosaic", "none"],
)
def test_boxes_stay_on_their_pixels(seed, settings):
    rng = np.random.default_rng(seed)
    sample = painted(rng)
    result = augment(sample, (256, 192), rng, settings, lambda: [painted(rng, 2 * i) for i in (1, 2, 3, 0)])
    assert result.size == (256, 192)
    assert result.image.dtype == np.uint8
    check(result)


@pytest.mark.parametrize("seed", range(20))
def test_pasted_objects_bring_their_boxes(seed):
    rng = np.random.default_rng(seed)
    settings = replace(ALL, crop=0, zoom_out=0, mosaic=0, pasted=3, visible=0.999)  # a box partly covered has other extents
    result = augment(painted(rng), (256, 192), rng, settings, objects=lambda: (painted(rng, 4), int(rng.integers(2))))
    assert result.size == (256, 192)
    check(result)


def test_as_many_objects_are_pasted_as_the_settings_allow():
    counts = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        empty = Sample(np.zeros((192, 256, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        one = Sample(painted(rng).image, np.array([[20, 20, 50, 60]], np.float32), np.array([7]))
        result = augment(empty, (256, 192), rng, AugmentSettings(pasted=2, visible=0), objects=lambda one=one: (one, 0))
        assert set(result.labels.tolist()) <= {7}
        counts.add(len(result.labels))
    assert counts == {0, 1, 2}


def test_what_a_pasted_object_covers_goes():
    rng, gone, kept = np.random.default_rng(1), 0, 0
    one = Sample(np.full((180, 240, 3), 200, np.uint8), np.array([[0, 0, 240, 180]], np.float32), np.array([7]))
    for _ in range(50):
        full = Sample(np.zeros((100, 100, 3), np.uint8), np.array([[45, 45, 55, 55]], np.float32), np.array([1]))
        result = paste_object(full, one, 0, rng, AugmentSettings(visible=0.5))
        middle = result.image[45:55, 45:55].any(-1).mean()
        assert (1 in result.labels) == (middle < 0.5), middle
        gone, kept = gone + (middle >= 0.5), kept + (middle < 0.5)
    assert gone
    assert kept


def test_mixup_shows_both_pictures_with_the_boxes_of_both():
    rng = np.random.default_rng(0)
    one, other = painted(rng), painted(rng, 4)
    both = mixup(one, other, rng)
    assert both.labels.tolist() == [0, 1, 4, 5]
    assert np.array_equal(both.boxes, np.concatenate((one.boxes, other.boxes)))
    low, high = np.minimum(one.image, other.image).astype(int), np.maximum(one.image, other.image).astype(int)
    share = (both.image.astype(int) - low)[high > low + 100] / (high - low)[high > low + 100]
    assert 0.39 <= share.min() <= share.max() <= 0.61
    always = augment(one, one.size, rng, replace(NONE, mixup=1.0), lambda: [other] * 4)
    assert always.labels.tolist() == both.labels.tolist()
    assert np.abs(always.boxes - both.boxes).max() < 1e-4


def test_what_shines_through_a_mosaic_is_none_of_its_pictures():
    rng = np.random.default_rng(0)
    one, *three = (painted(rng, 2 * i) for i in range(4))
    last = replace(painted(rng), labels=np.array([8, 9]))
    result = augment(one, one.size, rng, replace(NONE, mosaic=1.0, mixup=1.0), lambda: [*three, last])
    through = result.labels >= 8
    assert result.labels[through].tolist() == [8, 9]
    assert (~through).any()
    assert np.abs(result.boxes[through] - last.boxes).max() < 1e-4


def test_mild_pictures_are_ones_that_a_camera_could_take():
    strong = AugmentSettings(mosaic=0.3, mixup=0.2, pasted=2, crop=0.7)
    assert strong.mild() == AugmentSettings(mosaic=0, mixup=0, pasted=0, crop=0.7)


def test_flip_twice_is_nothing():
    sample = painted(np.random.default_rng(0))
    check(flip(sample))
    twice = flip(flip(sample))
    assert np.array_equal(twice.image, sample.image)
    assert np.array_equal(twice.boxes, sample.boxes)


def test_crop_cuts_boxes_and_drops_those_outside():
    sample = Sample(np.zeros((100, 100, 3), np.uint8), np.array([[10, 10, 30, 30], [60, 60, 90, 90]], np.float32), np.arange(2))
    kept = crop(sample, (20, 0, 70, 50), (100, 100), AugmentSettings(visible=0.35))
    assert kept.labels.tolist() == [0]
    assert kept.boxes.tolist() == [[0, 20, 20, 60]]
    assert not len(crop(sample, (25, 0, 75, 50), (100, 100), AugmentSettings(visible=0.35)).labels)


def test_nothing_is_changed_in_place():
    rng = np.random.default_rng(3)
    sample = painted(rng)
    image, boxes = sample.image.copy(), sample.boxes.copy()
    for seed in range(20):
        settings = AugmentSettings(mosaic=0.5, mixup=0.5, pasted=2)
        augment(sample, (128, 128), np.random.default_rng(seed), settings, lambda: [sample] * 4, lambda: (sample, 0))
    assert np.array_equal(image, sample.image)
    assert np.array_equal(boxes, sample.boxes)


def test_pictures_without_boxes():
    empty = Sample(np.zeros((60, 80, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        result = augment(empty, (128, 64), rng, AugmentSettings(mosaic=0.4, zoom_out=0.4), lambda: [empty] * 4)
        assert result.boxes.shape == (0, 4)
    assert zoom_out(empty, (64, 64), np.random.default_rng(0)).size == (64, 64)
    assert mosaic([empty] * 4, (64, 64), np.random.default_rng(0)).size == (64, 64)


def test_colour_keeps_shape_and_depends_on_the_rng():
    image = painted(np.random.default_rng(0)).image
    first, again, other = (colour(image, np.random.default_rng(seed), 1.0) for seed in (1, 1, 2))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_windows_take_the_canvas_s_shape_where_the_picture_allows():
    assert towards_shape((100, 100, 140, 200), (400, 300), (320, 240)) == pytest.approx((53.33, 100, 186.67, 200), abs=0.01)
    assert towards_shape((100, 100, 300, 140), (400, 300), (320, 240)) == pytest.approx((100, 45, 300, 195))
    assert towards_shape((0, 0, 400, 100), (400, 300), (320, 240)) == pytest.approx((0, 0, 400, 300))
    assert towards_shape((0, 0, 100, 300), (200, 300), (320, 240)) == pytest.approx((0, 0, 200, 300))


def test_fit():
    assert fit((400, 300), (320, 256)) == (320, 240)
    assert fit((400, 300), (320, 256), stretch=1.2) == (320, 256)
    assert fit((300, 400), (320, 256)) == (192, 256)
