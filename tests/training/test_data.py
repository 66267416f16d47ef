import json

import numpy as np
import pytest
import torch

from litedetr.training.augment import NONE, AugmentSettings
from litedetr.training.data import BatchStream, DataError, PhotoSet, canvas_for, objects_by_class, repeat_factors


def rewrite(folder, tmp_path, change):
    """The train set's annotations, changed, beside the same pictures."""
    content = json.loads((folder / "train.json").read_text())
    change(content)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    return path, folder / "train"


def test_categories_become_consecutive(photo_folder):
    photos = PhotoSet.open(photo_folder)
    assert photos.names == ["person", "train"]
    assert photos.category_ids == [1, 7]
    assert {int(label) for photo in photos.photos for label in photo.labels} == {0, 1}
    assert photos.skipped == {}


def test_pictures_are_rgb_and_boxes_fit_them(photo_folder):
    photos = PhotoSet.open(photo_folder)
    sample = photos.sample(1)
    left, top, right, bottom = sample.boxes[0].astype(int)
    expected = [(220, 40, 40), (40, 60, 220)][sample.labels[0]]
    assert np.array_equal(sample.image[(top + bottom) // 2, (left + right) // 2], expected)
    assert photos.sample(1).image is sample.image  # kept
    assert PhotoSet.open(photo_folder, cache_bytes=0).sample(1).image is not sample.image


def test_unusable_annotations_are_counted_by_reason(photo_folder, tmp_path, caplog):
    def spoil(content):
        base = content["annotations"][0]
        for number, changes in enumerate((
            {"iscrowd": 1}, {"bbox": [1, 1, 0, 5]}, {"bbox": [1, 1, -3, 5]}, {"bbox": [1, "x", 3, 5]}, {"category_id": 99},
            {"image_id": 999}, {"bbox": [1000, 1000, 5, 5]}, {"bbox": [1, 1, float("nan"), 5]}, {"bbox": [-5, -5, 20, 20]},
            {"id": 1},
        )):  # fmt: skip
            content["annotations"].append({**base, "id": 1000 + number, **changes})

    before = sum(len(photo.boxes) for photo in PhotoSet.open(photo_folder).photos)
    photos = PhotoSet(*rewrite(photo_folder, tmp_path, spoil))
    said = [record.getMessage() for record in caplog.records]
    assert "changed.json: 2 annotations left out: its box is empty (1001 of 1.png, 1002 of 1.png)" in said
    assert "changed.json: 1 boxes cut at their picture's edge (1008 of 1.png)" in said
    assert photos.skipped == {
        "crowd": 1,
        "its box is empty": 2,
        "its box is not four numbers": 1,
        "its category is not listed": 1,
        "its picture is not listed": 1,
        "its box lies outside of the picture": 1,
        "its box is not finite": 1,
        "its id was used before": 1,
    }
    assert sum(len(photo.boxes) for photo in photos.photos) == before + 1
    assert min(photo.boxes.min() for photo in photos.photos if len(photo.boxes)) >= 0


def test_errors_say_what_to_do(photo_folder, tmp_path):
    with pytest.raises(DataError, match="found no file"):
        PhotoSet.open(tmp_path)
    (tmp_path / "train.json").write_text("{]")
    with pytest.raises(DataError, match="expected JSON"):
        PhotoSet.open(tmp_path)
    (tmp_path / "train.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="'annotations', 'categories'"):
        PhotoSet.open(tmp_path)
    path, _ = rewrite(photo_folder, tmp_path, lambda content: None)
    with pytest.raises(DataError, match="10 are missing"):
        PhotoSet(path, tmp_path)
    path, images = rewrite(photo_folder, tmp_path, lambda content: content.update(images=[]))
    with pytest.raises(DataError, match="at least one picture"):
        PhotoSet(path, images)
    broken = tmp_path / "pictures"
    broken.mkdir()
    for picture in images.iterdir():
        (broken / picture.name).write_bytes(b"not a picture")
    path, _ = rewrite(photo_folder, tmp_path, lambda content: None)
    with pytest.raises(DataError, match=r"cannot decode"):
        PhotoSet(path, broken).sample(0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["images"][1].update(id=1), r"every picture in .*, 1\.png, 2\.png share theirs; renumber"),
        (lambda content: content["categories"][1].update(id=1), "every category in .*, person, train share theirs"),
        (lambda content: content["images"][2].pop("width"), r"of every picture in .*, number 2 lacks \['width'\]; complete it"),
        (lambda content: content["images"][2].update(height=0), r"the width and height of every picture in .*, 3\.png have none"),
        (lambda content: content.update(categories=[]), "expected at least one category"),
    ],
)
def test_entries_that_cannot_be_used_are_refused(photo_folder, tmp_path, change, said):
    with pytest.raises(DataError, match=said):
        PhotoSet(*rewrite(photo_folder, tmp_path, change))


def batches(stream: BatchStream, sizes: list[tuple[int, int]]) -> list:
    for size in sizes:
        stream.request(*size)
    taken = [stream.take() for _ in sizes]
    stream.close()
    return taken


def test_a_stream_goes_on_where_it_was(photo_folder):
    photos = PhotoSet.open(photo_folder)
    sizes = [(64, 3), (64, 3), (128, 2), (128, 2), (128, 2), (64, 4)]
    augmentation = AugmentSettings(mosaic=0.4, mixup=0.3, pasted=2)
    whole = batches(BatchStream(photos, augmentation, seed=5), sizes)
    position = json.loads(json.dumps(whole[2].position))
    rest = batches(BatchStream(photos, augmentation, seed=5, position=position), sizes[3:])
    for expected, batch in zip(whole[3:], rest, strict=True):
        assert torch.equal(expected.images, batch.images)
        assert torch.equal(expected.mask, batch.mask)
        assert torch.equal(expected.targets.boxes, batch.targets.boxes)
        assert torch.equal(expected.targets.labels, batch.targets.labels)
        assert expected.position == batch.position
    other = batches(BatchStream(photos, augmentation, seed=6), sizes)
    assert any(a.images.shape != b.images.shape or not torch.equal(a.images, b.images) for a, b in zip(whole, other, strict=True))


def test_mild_batches_are_those_of_a_mild_stream(photo_folder):
    photos, strong = PhotoSet.open(photo_folder), AugmentSettings(mosaic=0.5, mixup=0.5, pasted=3)
    streams = [BatchStream(photos, augmentation, seed=3) for augmentation in (strong, strong, strong.mild())]
    for stream, mild in zip(streams, (False, True, False), strict=True):
        stream.request(64, 8, mild=mild)
    wild, mild, expected = (stream.take() for stream in streams)
    assert torch.equal(mild.images, expected.images)
    assert not torch.equal(wild.images, expected.images)
    for stream in streams:
        stream.close()


def test_objects_to_paste_are_found_by_class(photo_folder):
    photos = PhotoSet.open(photo_folder)
    classes = objects_by_class(photos, smallest=15)
    assert len(classes) == 2
    seen = set()
    for label, members in enumerate(classes):
        for photo, box in members:
            assert photos.photos[photo].labels[box] == label
            left, top, right, bottom = photos.photos[photo].boxes[box]
            assert min(right - left, bottom - top) >= 15
            seen.add((photo, box))
    small = sum((box[2:] - box[:2]).min() < 15 for photo in photos.photos for box in photo.boxes)
    assert len(seen) == sum(len(photo.boxes) for photo in photos.photos) - small
    assert small


def test_one_pass_shows_every_picture_once(photo_folder):
    photos = PhotoSet.open(photo_folder)
    stream = BatchStream(photos, seed=1)
    for side in (0, 1):
        members = stream._members[side]
        for turn in range(2 * len(members)):
            stream._one(side, turn, (64, 64), NONE)
        orders = [stream._orders[side, epoch] for epoch in (0, 1)]
        assert all(sorted(order) == sorted(members) for order in orders)
    assert stream.epoch_size == len(photos)
    stream.close()


def test_batches_fill_the_canvas(photo_folder):
    photos = PhotoSet.open(photo_folder)
    for batch in batches(BatchStream(photos, AugmentSettings(mosaic=0.2), seed=2), [(128, 2)] * 4):
        assert sorted(batch.images.shape[1:3]) == [96, 128]
        assert not batch.mask.any()
        assert (batch.targets.boxes[:, 2:] > 0).all()
        assert (batch.targets.boxes <= 1).all()


def test_canvases():
    assert canvas_for(192, True) == (192, 160)
    assert canvas_for(256, True) == (256, 192)
    assert canvas_for(320, False) == (256, 320)


def test_rare_classes_come_more_often(photo_folder):
    photos = PhotoSet.open(photo_folder)
    assert (repeat_factors(photos, 0.0) == 1).all()
    factors = repeat_factors(photos, 2.0)
    assert factors.min() > 1
    stream = BatchStream(photos, rare=2.0)
    assert stream.epoch_size > len(photos)
    stream.close()
