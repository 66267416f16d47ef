"""What a look at a set shows."""

import json

import numpy as np
from PIL import Image

from litedetr.cli import main
from litedetr.training.data import PhotoSet


def test_the_command_says_what_is_there(photo_folder, tmp_path, capsys):
    assert main(["data", str(photo_folder), "--sheet", str(tmp_path / "sheet.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    boxes = sum(len(photo.boxes) for photo in PhotoSet.open(photo_folder).photos)
    assert lines[0].startswith(f"train: 10 pictures (COCO format), about 64 x 48; {boxes} boxes, 0 crowds, 0 left out; 0 ")
    assert lines[1].startswith("val: 4 pictures")
    rows = {line.split()[0]: line.split()[1:] for line in lines[4:6]}
    assert set(rows) == {"person", "train"}
    assert sum(int(row[0]) for row in rows.values()) == boxes
    for count, small, medium, large, pictures, _ in (map(int, row) for row in rows.values()):
        assert count == small + medium + large
        assert pictures <= 10
    assert "classes that the start knows by name: 2 of 2 (person, train)" in lines
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (4 * 320, 4 * 320, 3)
    assert {(230, 159, 0), (86, 180, 233)} <= {tuple(pixel) for pixel in sheet.reshape(-1, 3).tolist()}  # boxes of both classes


def test_what_is_odd_is_said(photo_folder, tmp_path, capsys):
    (tmp_path / "train").symlink_to(photo_folder / "train")
    content = json.loads((photo_folder / "train.json").read_text())
    content["categories"].append({"id": 9, "name": "helmet"})
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] > 1]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert main(["data", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert "; 1 pictures without a box" in said
    assert "val: none, so no AP is measured" in said
    assert "never used: helmet (1 classes)" in said
    assert main(["data", str(tmp_path / "nowhere")]) == 2
