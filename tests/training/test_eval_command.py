"""python -m litedetr eval: COCO's own layout, and measurements that go on after a kill."""

import json
import re
import shutil

import pytest

from litedetr.cli import main
from litedetr.training import evaluation
from litedetr.training.evaluation import FIGURES
from tests.training.conftest import tiny_detector
from tests.weights.conftest import NAME, checkpoint, host, host_server, path  # noqa: F401  fixtures


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_detector(short_side=96, long_side=96, category_ids=(1, 7)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def coco(photo_folder, tmp_path_factory):
    """The tiny photos in COCO's own layout."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    shutil.copy(photo_folder / "val.json", folder / "annotations" / "instances_val2017.json")
    shutil.copytree(photo_folder / "val", folder / "val2017")
    return folder


def figures(capsys, *arguments) -> dict:
    assert main(["eval", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["figures"]


def read(folder) -> list:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def test_cocos_layout_is_the_same_as_ours(model, coco, photo_folder, capsys):
    ours = figures(capsys, model, "--data", photo_folder, "--precision", "f32")
    assert figures(capsys, model, "--coco", coco, "--batch", 3) == pytest.approx(ours, abs=1e-6)
    assert main(["eval", str(model), "--coco", str(coco)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:12]] == list(FIGURES)
    assert all(re.fullmatch(r"\w+ +(\d+\.\d|-)", line) for line in lines[:12])
    assert lines[12].startswith("best F1")
    assert lines[-1].startswith("4 pictures")


def test_the_authors_weights_by_name(host, path, checkpoint, coco, capsys):  # noqa: F811
    host.add(path, checkpoint)
    for _ in range(2):  # from its host, then from the cache
        assert set(figures(capsys, NAME, "--coco", coco, "--size", 96)) == set(FIGURES)
    assert host.asked == [(path, "")]


def test_what_is_missing_is_said(model, coco, tmp_path, capsys):
    assert main(["eval", str(model), "--coco", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"litedetr: expected COCO's own layout in {tmp_path}, ")
    assert "instances_val2017.json and " in said
    assert "unpack val2017.zip and annotations_trainval2017.zip" in said
    shutil.copytree(coco / "annotations", tmp_path / "annotations")
    assert main(["eval", str(model), "--coco", str(tmp_path)]) == 2
    assert f"{tmp_path / 'val2017'} not found" in capsys.readouterr().err


def test_a_killed_measurement_goes_on(model, coco, tmp_path, capsys, monkeypatch):
    whole = figures(capsys, model, "--coco", coco, "--batch", 1, "--out", tmp_path / "whole")
    pictures, detect = [], evaluation._detect

    def until_killed(detector, photos, batch, *rest):
        if len(pictures) == 2:
            raise KeyboardInterrupt
        pictures.extend(batch)
        return detect(detector, photos, batch, *rest)

    killed = tmp_path / "killed"
    with monkeypatch.context() as context:
        context.setattr(evaluation, "_detect", until_killed)
        with pytest.raises(KeyboardInterrupt):
            main(["eval", str(model), "--coco", str(coco), "--batch", "1", "--out", str(killed)])
    with (killed / "detections-0.jsonl").open("a") as file:
        file.write('{"image_id": 3, "detec')  # a line cut off
    assert figures(capsys, model, "--coco", coco, "--batch", 1, "--out", killed) == whole
    assert sorted(line["image_id"] for line in read(killed)) == [1, 2, 3, 4]
    by_picture = {line["image_id"]: line for line in read(killed)}
    assert by_picture == {line["image_id"]: line for line in read(tmp_path / "whole")}

    monkeypatch.setattr(evaluation, "_detect", None)  # a finished one runs nothing
    assert figures(capsys, model, "--coco", coco, "--out", killed) == whole


def test_another_model_or_size_is_refused(model, coco, tmp_path, capsys):
    run = ["eval", str(model), "--coco", str(coco), "--out", str(tmp_path / "out"), "--limit", "1"]
    assert main(run) == 0
    capsys.readouterr()
    assert main([*run, "--size", "128"]) == 2
    assert "sides [96, 96], now [128, 128]. Give another folder, or delete this one" in capsys.readouterr().err
    tiny_detector(short_side=96, long_side=96, category_ids=(7, 1)).save_pretrained(tmp_path / "other")
    assert main([run[0], str(tmp_path / "other"), *run[2:]]) == 2
    assert re.search(r"got another one: model '\w{16}', now '\w{16}'\.", capsys.readouterr().err)
