"""One small set in every layout that people have: all of them give the same pictures and boxes."""

import json
import shutil

import numpy as np
import pytest

from litedetr.training.data import DataError, PhotoSet
from litedetr.training.layouts import find


def content_of(folder, split):
    return json.loads((folder / f"{split}.json").read_text())


def boxes_by_name(content):
    """file name -> [(class name, [x, y, w, h])]"""
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    files = {entry["id"]: entry["file_name"] for entry in content["images"]}
    found = {name: [] for name in files.values()}
    for entry in content["annotations"]:
        found[files[entry["image_id"]]].append((names[entry["category_id"]], entry["bbox"]))
    return found


def coco(folder, root, split):
    (root / "annotations").mkdir(exist_ok=True)
    shutil.copy(folder / f"{split}.json", root / "annotations" / f"instances_{split}2017.json")
    shutil.copytree(folder / split, root / f"{split}2017")


def roboflow(folder, root, split):
    name = {"val": "valid"}.get(split, split)
    shutil.copytree(folder / split, root / name)
    content = content_of(folder, split)
    content["categories"].insert(0, {"id": 0, "name": "person", "supercategory": "none"})
    content["categories"][1]["supercategory"] = "person"
    (root / name / "_annotations.coco.json").write_text(json.dumps(content))


def yolo(folder, root, split):
    content = content_of(folder, split)
    sizes = {entry["file_name"]: (entry["width"], entry["height"]) for entry in content["images"]}
    shutil.copytree(folder / split, root / split / "images")
    (root / split / "labels").mkdir()
    for file, boxes in boxes_by_name(content).items():
        w, h = sizes[file]
        lines = [
            f"{['person', 'train'].index(name)} {(x + bw / 2) / w:.6f} {(y + bh / 2) / h:.6f} {bw / w:.6f} {bh / h:.6f}"
            for name, (x, y, bw, bh) in boxes
        ]
        (root / split / "labels" / file).with_suffix(".txt").write_text("\n".join(lines))
    # Roboflow's own paths lead one folder too far up.
    (root / "data.yaml").write_text("train: ../train/images\nval: ../val/images\nnames: [person, train]\n")


def voc(folder, root, split):
    content = content_of(folder, split)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for file, boxes in boxes_by_name(content).items():
        stem = f"{split}-{file.split('.')[0]}"
        shutil.copy(folder / split / file, root / "JPEGImages" / f"{stem}.png")
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax>"
            f"<ymax>{y + h}</ymax></bndbox></object>" for name, (x, y, w, h) in boxes
        )  # fmt: skip
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation><filename>{stem}.png</filename>{objects}</annotation>")
        with (root / "ImageSets" / "Main" / f"{split}.txt").open("a") as listed:
            listed.write(f"{stem}\n")


def roboflow_voc(folder, root, split):
    voc(folder, root / "made", split)
    name = {"val": "valid"}.get(split, split)
    shutil.copytree(root / "made" / "JPEGImages", root / name)
    for file in (root / "made" / "Annotations").iterdir():
        shutil.copy(file, root / name)
    shutil.rmtree(root / "made")


def imagefolder(folder, root, split):
    shutil.copytree(folder / split, root / split)
    lines = [
        json.dumps({"file_name": file, "objects": {"bbox": [box for _, box in boxes], "categories": [name for name, _ in boxes]}})
        for file, boxes in boxes_by_name(content_of(folder, split)).items()
    ]
    (root / split / "metadata.jsonl").write_text("\n".join(lines))


LAYOUTS = {
    "COCO": coco, "Roboflow's COCO export": roboflow, "YOLO": yolo, "Pascal VOC": voc, "imagefolder": imagefolder,
}  # fmt: skip


@pytest.mark.parametrize(("layout", "make"), [*LAYOUTS.items(), ("Pascal VOC", roboflow_voc)])
def test_every_layout_gives_the_same_set(photo_folder, tmp_path, layout, make):
    for split in ("train", "val"):
        make(photo_folder, tmp_path, split)
    found = find(tmp_path)
    assert list(found) == ["train", "val"]
    assert found["train"].layout == layout
    for split in found:
        sound, photos = PhotoSet.open(photo_folder, split), PhotoSet.open(tmp_path, split)
        assert photos.names == ["person", "train"]
        by_file = {photo.path.name.removeprefix(f"{split}-"): photo for photo in photos.photos}
        assert set(by_file) == {photo.path.name for photo in sound.photos}
        for expected in sound.photos:
            photo = by_file[expected.path.name]
            assert (photo.width, photo.height) == (expected.width, expected.height)
            np.testing.assert_allclose(photo.boxes, expected.boxes, atol=1e-3)
            assert np.array_equal(photo.labels, expected.labels)


def test_this_projects_own_comes_first(photo_folder):
    assert {name: split.layout for name, split in find(photo_folder).items()} == dict.fromkeys(("train", "val"), "COCO format")


def test_what_is_there_is_said(tmp_path, photo_folder):
    with pytest.raises(DataError, match=r"found none at .*nowhere; check the path"):
        find(tmp_path / "nowhere")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"expected train\.json with train/, .* no such file but pictures/; give the set's"):
        find(tmp_path)
    yolo(photo_folder, tmp_path, "train")
    with pytest.raises(DataError, match=r"expected the pictures of .*data\.yaml at \.\./val/images, found nothing there"):
        find(tmp_path)
    (tmp_path / "data.yaml").write_text("train: train/images\nnames: {0: person, 1: train}\n")
    with pytest.raises(DataError, match=r"expected a split called val in .*, found train"):
        PhotoSet.open(tmp_path, "val")
    (tmp_path / "train" / "labels" / "1.txt").write_text("7 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"expected one of 2 classes and four numbers in line 1 of .*1\.txt, got '7 0\.5"):
        PhotoSet.open(tmp_path)


def test_polygons_and_negatives_of_yolo(tmp_path, photo_folder):
    yolo(photo_folder, tmp_path, "train")
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: train/images\nnames: [person, train]\n")
    (tmp_path / "train" / "labels" / "1.txt").write_text("1 0.25 0.25 0.75 0.25 0.75 0.5\n")
    (tmp_path / "train" / "labels" / "2.txt").unlink()
    photos = {photo.path.name: photo for photo in PhotoSet.open(tmp_path).photos}
    width, height = photos["1.png"].width, photos["1.png"].height
    assert photos["1.png"].boxes.tolist() == [[0.25 * width, 0.25 * height, 0.75 * width, 0.5 * height]]
    assert len(photos["2.png"].boxes) == 0
