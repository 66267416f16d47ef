import json

import numpy as np
import pytest
import torch
from PIL import Image

from litedetr.training.augment import NONE, AugmentSettings
from litedetr.training.data import BatchStream, DataError, PhotoSet, canvas_for, objects_by_class, repeat_factors
from litedetr.training.evaluation import measure


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
            {"id": 1, "iscrowd": "often"}, {"id": 1}, {"id": 1, "bbox": [1, 1, 5, 5]}, {"image_id": None}, {"bbox": None},
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
        "its box is not four numbers": 2,
        "its category is not listed": 1,
        "its picture is not listed": 2,
        "its box lies outside of the picture": 1,
        "its box is not finite": 1,
        "its iscrowd is neither 0 nor 1": 1,
        "it is listed twice": 1,
    }
    assert sum(len(photo.boxes) for photo in photos.photos) == before + 2
    assert min(photo.boxes.min() for photo in photos.photos if len(photo.boxes)) >= 0


def test_errors_say_what_to_do(photo_folder, tmp_path):
    with pytest.raises(DataError, match="found no file"):
        PhotoSet(tmp_path / "train.json", tmp_path)
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
    with pytest.raises(DataError, match=r"10 of 10 files cannot be read \(1\.png: This file is not a picture"):
        PhotoSet(path, broken)
    whole = (images / "1.png").read_bytes()
    for picture in images.iterdir():
        (broken / picture.name).write_bytes(picture.read_bytes())
    (broken / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1 of 10 files cannot be read \(1\.png: This picture is broken or cut off"):
        PhotoSet(path, broken)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["images"][1].update(id=1), r"every picture in .*, 1\.png, 2\.png share theirs; renumber"),
        (lambda content: content["categories"][1].update(id=1), "every category in .*, person, train share theirs"),
        (lambda content: content["images"][2].pop("id"), r"of every picture in .*, number 2 lacks \['id'\]; complete it"),
        (lambda content: content["images"].append(None), r"of every picture in .*, number 10 lacks \['id', 'file_name'\]"),
        (lambda content: content["images"][2].update(file_name=" "), r"number 2 lacks \['file_name'\]"),
        (lambda content: content["images"][2].update(width=300), "got 1 of another shape .3.png: 300 x 64 annotated, 48 x 64"),
        (
            lambda content: content["categories"][0].update(name="train"),
            "every category in .*, got boxes of train as id 1 and as id 7; rename or join",
        ),
        (lambda content: content.update(annotations=[]), r"at least one usable box in .*, got none \(there is none at all\)"),
        (lambda content: [entry.update(bbox=[5, 5, 0, 0]) for entry in content["annotations"]], r"got none \(15 left out: its"),
        (lambda content: [entry.update(bbox=[0.1, 0.2, 0.3, 0.4]) for entry in content["annotations"]], "shares of the picture"),
        (lambda content: content.update(categories=[]), "expected at least one category"),
    ],
)
def test_entries_that_cannot_be_used_are_refused(photo_folder, tmp_path, change, said):
    with pytest.raises(DataError, match=said):
        PhotoSet(*rewrite(photo_folder, tmp_path, change))


def numbered_as_text(content):
    for entry in content["images"]:
        entry["id"] = f"{entry['id']:04d}"
    for entry in content["annotations"]:
        entry |= {"category_id": str(entry["category_id"]), "bbox": [str(value) for value in entry["bbox"]], "iscrowd": "0"}


def named_as_text(content):
    for entry in content["images"]:
        entry["id"] = f"picture-{entry['id']}"
    for entry in content["annotations"]:
        entry["image_id"] = f"picture-{entry['image_id']}"
        entry["category_id"] = {1: "person", 7: "train"}[entry["category_id"]]
    for entry in content["categories"]:
        entry["id"] = entry["name"]


def polygons(content):
    for entry in content["annotations"][:3]:
        x, y, w, h = entry.pop("bbox")
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]


def without_sizes(content):
    for entry in content["images"]:
        entry |= {"width": None, "height": "?"}


def wrong_way_round(content):
    for entry in content["images"]:
        entry["width"], entry["height"] = entry["height"], entry["width"]


def with_a_root(content):
    content["categories"].insert(0, {"id": 0, "name": "person", "supercategory": "none"})
    content["categories"][1]["supercategory"] = "person"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: [entry.update(area=None) for entry in content["annotations"]], None),
        (lambda content: [entry.pop("iscrowd") for entry in content["annotations"]], None),
        (lambda content: [entry.pop("id") for entry in content["annotations"]], None),
        (lambda content: [entry.update(id=0) for entry in content["annotations"]], None),
        (lambda content: [entry.update(file_name=f"C:\\set\\train\\{entry['file_name']}") for entry in content["images"]], None),
        (numbered_as_text, None),
        (named_as_text, "its categories have texts as ids: they are numbered from 1"),
        (polygons, "3 annotations have a polygon and no box: the box around it is taken"),
        (without_sizes, "10 of 10 pictures: width and height are not given, and taken from the file (1.png, 2.png, 3.png, …)"),
        (wrong_way_round, "10 of 10 pictures: width and height are the wrong way round, and taken from the file (1.png"),
        (with_a_root, "categories left out, since each is a root, or has another one's name and no box is of it: person (id 0)"),
    ],
)
def test_what_tools_write_is_read_as_it_is_meant(photo_folder, tmp_path, caplog, change, said):
    """Every one of these sets is the same as the sound one, to training and to measuring."""
    sound = PhotoSet.open(photo_folder)
    path, images = rewrite(photo_folder, tmp_path, change)
    path.write_text(path.read_text(), encoding="utf-8-sig")  # as PowerShell and some editors save
    photos = PhotoSet(path, images)
    assert photos.names == sound.names
    assert photos.skipped == {}
    for photo, expected in zip(photos.photos, sound.photos, strict=True):
        assert (photo.path, photo.width, photo.height) == (expected.path, expected.width, expected.height)
        assert np.array_equal(photo.boxes, expected.boxes)
        assert np.array_equal(photo.labels, expected.labels)
    assert [entry["area"] for entry in photos.content["annotations"]] == [entry["area"] for entry in sound.content["annotations"]]
    results = [{"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": entry["bbox"], "score": 0.9}
               for entry in photos.content["annotations"]]  # fmt: skip
    assert measure(photos.content, results, [photo.id for photo in photos.photos]).figures["AP"] == pytest.approx(1.0)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (0 if said is None else 1)
    assert said is None or messages[0].startswith(f"changed.json: {said}")


UNDO = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270}  # fmt: skip


def with_exif(folder, tmp_path, orientation_of, stored_boxes: bool):
    """The train set with an EXIF orientation for each picture: drawn upright and stored turned, or drawn as stored."""
    content = json.loads((folder / "train.json").read_text())
    (tmp_path / "train").mkdir()
    for entry in content["images"]:
        picture = Image.open(folder / "train" / entry["file_name"])
        exif = Image.Exif()
        exif[0x0112] = orientation_of(entry["id"])
        if not stored_boxes and exif[0x0112] in UNDO:
            picture = picture.transpose(UNDO[exif[0x0112]])
        picture.save(tmp_path / "train" / entry["file_name"], exif=exif)
    (tmp_path / "train.json").write_text(json.dumps(content))
    return PhotoSet.open(tmp_path)


@pytest.mark.parametrize("stored_boxes", [False, True])
@pytest.mark.parametrize("orientation_of", [lambda number: 6, lambda number: 5 + number % 4, lambda number: (3, 8)[number % 2]])
def test_exif_orientation_is_what_the_boxes_say(photo_folder, tmp_path, caplog, stored_boxes, orientation_of):
    sound, photos = PhotoSet.open(photo_folder), with_exif(photo_folder, tmp_path, orientation_of, stored_boxes)
    for index in range(len(sound)):
        sample, expected = photos.sample(index), sound.sample(index)
        assert np.array_equal(sample.image, expected.image)
        assert np.array_equal(sample.boxes, expected.boxes)
    what = "of the picture as stored, and it stays so" if stored_boxes else "of the upright picture"
    assert caplog.records[-1].getMessage().startswith(f"train.json: 10 of 10 pictures have an EXIF orientation: boxes are {what}")


def test_half_turns_alone_are_undone_as_tools_show_them(photo_folder, tmp_path):
    sound, photos = PhotoSet.open(photo_folder), with_exif(photo_folder, tmp_path, lambda number: 3, False)
    assert np.array_equal(photos.sample(0).image, sound.sample(0).image)


def test_another_resolution_scales_the_boxes(photo_folder, tmp_path, caplog):
    def larger(content):
        for entry in content["images"]:
            entry |= {"width": 2 * entry["width"], "height": 2 * entry["height"]}
        for entry in content["annotations"]:
            entry["bbox"] = [2 * value for value in entry["bbox"]]

    photos = PhotoSet(*rewrite(photo_folder, tmp_path, larger))
    assert np.array_equal(photos.sample(0).boxes, PhotoSet.open(photo_folder).sample(0).boxes)
    assert "the file has another resolution than is annotated: boxes are scaled (1.png" in caplog.records[0].getMessage()


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
    rest = batches(BatchStream(photos, augmentation, seed=5, position=position, workers=3), sizes[3:])  # and by several threads
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
