import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from litedetr.output import DetectorOutput
from litedetr.training.data import DataError, PhotoSet
from litedetr.training.evaluation import FIGURES, evaluate, measure
from tests.training.conftest import tiny_detector


def hand_made():
    boxes = {1: [(10, 10, 40, 60), (100, 20, 50, 50)], 2: [(5, 5, 120, 120)]}
    annotations, number = [], 0
    for image, listed in boxes.items():
        for x, y, w, h in listed:
            number += 1
            annotations.append({"id": number, "image_id": image, "category_id": 1 + 6 * (number % 2), "bbox": [x, y, w, h]})
    return {
        "images": [{"id": number, "width": 200, "height": 200, "file_name": f"{number}.jpg"} for number in boxes],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 7, "name": "train"}],
    }


def as_results(content, score=0.9):
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: entry[key] for key in keys}, "score": score} for entry in content["annotations"]]


def test_perfect_results():
    content = hand_made()
    result = measure(content, as_results(content), [1, 2])
    assert result.figures["AP"] == pytest.approx(1.0)
    assert result.person_ap50 == pytest.approx(1.0)
    assert set(result.per_class) == {"person", "train"}
    assert tuple(result.figures) == FIGURES
    assert "AP 100.0" in result.summary()
    assert result.to_dict()["images"] == 2


def test_half_found_and_nothing_found():
    content = hand_made()
    found = measure(content, as_results(content)[1:], [1, 2])  # one of two trains is missed
    assert found.per_class["person"]["AP50"] == pytest.approx(1.0)
    assert found.per_class["train"]["AP50"] == pytest.approx(51 / 101)
    nothing = measure(content, [], [1, 2])
    assert nothing.figures["AP"] == 0.0


def test_crowds_are_ignored():
    content = hand_made()
    crowd = {"id": 99, "image_id": 1, "category_id": 1, "bbox": [0, 100, 200, 100], "iscrowd": 1}
    content["annotations"].append(crowd)
    results = as_results(content)[:-1]
    results += [{"image_id": 1, "category_id": 1, "bbox": [x, 120, 30, 40], "score": 0.95} for x in (10, 60, 120)]
    assert measure(content, results, [1, 2]).figures["AP"] == pytest.approx(1.0)


class Oracle(nn.Module):
    """Answers with the truth, in the order in which pictures are asked for."""

    def __init__(self, photos: PhotoSet):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(
            num_classes=2,
            class_names=(),
            category_ids=(),
            short_side=96,
            long_side=96,
            size_divisor=96,
            top_k=100,
            pixel_mean=(0.0,) * 3,
            pixel_std=(1.0,) * 3,
            nms_iou=None,
        )
        self.queue = list(photos.photos)  # one canvas for all

    def forward(self, pixels, mask):
        batch, self.queue = self.queue[: len(pixels)], self.queue[len(pixels) :]
        logits, boxes = torch.full((len(batch), 5, 2), -9.0), torch.zeros(len(batch), 5, 4)
        for row, photo in enumerate(batch):
            size = torch.tensor([photo.width, photo.height] * 2)
            corners = torch.from_numpy(photo.boxes) / size
            count = len(corners)
            boxes[row, :count, :2] = (corners[:, :2] + corners[:, 2:]) / 2
            boxes[row, :count, 2:] = corners[:, 2:] - corners[:, :2]
            logits[row, torch.arange(count), torch.from_numpy(photo.labels)] = 9.0
        assert pixels.shape[2:] == (96, 96)
        assert mask.shape == (len(batch), *pixels.shape[2:])
        return DetectorOutput(logits, boxes)


def test_a_perfect_detector(photo_folder):
    paths = photo_folder / "train.json", photo_folder / "train"
    result = evaluate(Oracle(PhotoSet(*paths)), *paths, batch_size=3, progress=False)
    assert result.figures["AP"] == pytest.approx(1.0)
    assert result.images == 10


def test_results_are_those_of_predict(photo_folder, monkeypatch):
    detector, kept = tiny_detector(short_side=96, long_side=96, category_ids=(1, 7), top_k=9), []
    monkeypatch.setattr("litedetr.training.evaluation.measure", lambda content, results, *_: kept.extend(results))
    evaluate(detector, photo_folder / "val.json", photo_folder / "val", progress=False)
    photos = PhotoSet.open(photo_folder, "val")
    for photo in photos.photos:
        found = detector.predict(photo.path, threshold=0.0)
        scores = [entry["score"] for entry in kept if entry["image_id"] == photo.id]
        assert scores == pytest.approx(found.scores.tolist(), abs=1e-4)
        assert len(scores) == 9


def test_any_detector(photo_folder):
    detector = tiny_detector().train()
    paths = photo_folder / "val.json", photo_folder / "val"
    result = evaluate(detector, *paths, size=64, limit=2, progress=False)
    assert result.images == 2
    assert detector.training


def test_nothing_to_find_is_no_figure(photo_folder, tmp_path):
    content = json.loads((photo_folder / "val.json").read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] > 2]
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"expected a box of the detector's classes on the 2 pictures to measure of .*, got none"):
        evaluate(tiny_detector(), tmp_path / "val.json", photo_folder / "val", size=64, limit=2, progress=False)


def test_classes_are_found_by_name_whatever_their_numbers(photo_folder, tmp_path, caplog):
    """The set counts train as 3 and person as 9, and has a class that the detector does not know."""
    content = json.loads((photo_folder / "train.json").read_text())
    content["categories"] = [{"id": 3, "name": "Train"}, {"id": 5, "name": "helmet"}, {"id": 9, "name": "person"}]
    for entry in content["annotations"]:
        entry["category_id"] = {1: 9, 7: 3}[entry["category_id"]]
    content["annotations"].append({**content["annotations"][0], "id": 999, "category_id": 5, "bbox": [1, 1, 9, 9]})
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    oracle = Oracle(PhotoSet.open(photo_folder))
    oracle.config.class_names, oracle.config.category_ids = ("person", "train"), (1, 7)
    result = evaluate(oracle, path, photo_folder / "train", batch_size=3, progress=False)
    assert result.figures["AP"] == pytest.approx(1.0)
    assert set(result.per_class) == {"person", "Train"}
    said = [record.getMessage() for record in caplog.records]
    assert "train.json: the detector's classes under other names: train is Train" in said
    assert "train.json: 1 classes that the detector does not know are left out of the figures (helmet)" in said
