import io
import json

import numpy as np
from PIL import Image

from app.server.exports import coco_json, png
from app.theme import class_colour


def test_json_is_coco(run):
    content = json.loads(coco_json(run, 0.0))
    assert content["images"] == [{"id": 1, "file_name": "scene.png", "width": 330, "height": 210}]
    known = {category["id"]: category["name"] for category in content["categories"]}
    assert len(content["annotations"]) == len(run.detections)
    for entry, box, name in zip(content["annotations"], run.detections.boxes, run.detections.names, strict=True):
        x, y, width, height = entry["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], box, atol=0.02)
        assert known[entry["category_id"]] == name
    assert json.loads(coco_json(run, 1.1))["annotations"] == []


def test_png_has_the_boxes(run):
    picture = np.asarray(Image.open(io.BytesIO(png(run, 0.0))))
    assert picture.shape == (210, 330, 3)
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    best = class_colour(int(run.detections.labels[0]))
    assert tuple(int(best[start : start + 2], 16) for start in (1, 3, 5)) in colours
