"""The command line, run as a user runs it."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litedetr.cli import main


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    detector.save_pretrained(folder)
    return folder


def test_detect(model, photo, tmp_path, capsys):
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(np.ascontiguousarray(photo[:, ::-1])).save(tmp_path / "b.jpg")
    (tmp_path / "c.png").write_bytes(b"no picture")
    out = tmp_path / "found.jsonl"
    assert main(["detect", str(tmp_path), "--model", str(model), "--threshold", "0", "--out", str(out)]) == 1
    lines = sorted(map(json.loads, out.read_text().splitlines()), key=lambda line: line["file"])
    assert [line["file"].rsplit("/")[-1] for line in lines] == ["a.png", "b.jpg", "c.png"]
    assert len(lines[0]["detections"]) == 300
    assert lines[2]["error"] == "This file is not a picture that can be read: send a JPEG, PNG or WebP file."
    said = capsys.readouterr()
    assert re.match(r"3 photos in \d+\.\d s: \d+\.\d photos/s; 1 could not be used\n  .*c\.png: This file is not a pic", said.out)
    assert "c.png: This file is not a picture" in said.err
    assert main(["detect", str(tmp_path / "a.png"), "--model", str(model)]) == 0
    assert json.loads(capsys.readouterr().out)["width"] == 200


def test_cost(capsys):
    assert main(["cost", "lite-dino-r50-h3l1-2x3", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["gmacs"]["encoder"] == pytest.approx(56.1, abs=0.05)
    assert data["parameters"] == 47_684_222
    assert list(data["encoder_steps"]) == ["B1 high", "B1 all", "B2 high", "B2 all", "B3 high", "B3 all"]
    assert main(["cost", "lite-dino-mobilenet", "--size", "640x640"]) == 0
    assert "with every scale updated in every layer" in capsys.readouterr().out
    assert main(["cost", "--paper", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"model", "size", "paper_total", "total", "paper_encoder", "encoder", "paper_ap"} <= rows[0].keys()
    assert main(["cost", "--paper"]) == 0
    assert "lite-h-detr-swin-t-h3l1-2x3" in capsys.readouterr().out
    assert main(["cost"]) == 2
    assert capsys.readouterr().err == (
        "litedetr: expected a preset, a weights folder or --paper, got nothing: name what to count\n"
    )
    assert main(["cost", "lite-dino-mobilenet", "--size", "big"]) == 2
    assert capsys.readouterr().err == "litedetr: expected a size like 800x1066 (height x width), got 'big'\n"


def test_eval(model, photo, tmp_path, capsys):
    folder = tmp_path / "val"
    folder.mkdir()
    Image.fromarray(photo).save(folder / "1.png")
    (tmp_path / "val.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "1.png", "width": 200, "height": 150}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 60, 60], "area": 3600, "iscrowd": 0}],
                "categories": [{"id": 1, "name": "person"}],
            }
        )
    )
    assert main(["eval", str(model), "--data", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 1
    assert 0 <= result["figures"]["AP"] <= 1
    before = json.loads((model / "config.json").read_text())
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    assert main(["eval", str(copy), "--data", str(tmp_path), "--json", "--calibrate"]) == 0
    calibration = json.loads(capsys.readouterr().out)["calibration"]
    after = json.loads((copy / "config.json").read_text())
    assert after == before | {"threshold": math.floor(100 * calibration["rescaled"]["threshold"]) / 100}
    assert (copy / "reliability.svg").read_text().startswith("<svg")
    assert main(["eval", "embedded", "--data", str(tmp_path), "--calibrate"]) == 2
    assert capsys.readouterr().err == (
        "litedetr: expected a weights folder to write the threshold to, got embedded; leave --calibrate out\n"
    )


def test_photos_with_their_boxes(model, photo, tmp_path, capsys):
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name in ("a.png", "more/a.png"):
        Image.fromarray(photo).save(tmp_path / "photos" / name)
    command = ["detect", str(tmp_path / "photos"), "--model", str(model), "--threshold", "0.3", "--draw", str(tmp_path / "drawn")]
    assert main(command) == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png-2.jpg", "a.png.jpg"]
    picture = np.asarray(Image.open(tmp_path / "drawn" / "a.png.jpg")).astype(int)
    assert picture.shape == photo.shape
    assert (np.abs(picture - photo).max(2) > 60).mean() > 0.01  # boxes
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main([*command, "--out", str(tmp_path / "found.jsonl")]) == 2


def test_alone_it_helps(capsys):
    assert main([]) == 0
    assert "find objects in photos" in capsys.readouterr().out


def test_a_percentage_is_no_threshold(tmp_path, capsys):
    assert main(["detect", str(tmp_path), "--threshold", "50"]) == 2
    assert capsys.readouterr().err == ("litedetr: expected a threshold from 0 to 1, as scores are, got 50: for 50 % give 0.5\n")


def test_a_wrong_model_is_a_sentence(capsys):
    assert main(["detect", "x.jpg", "--model", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith('litedetr: expected "embedded", a folder with')
