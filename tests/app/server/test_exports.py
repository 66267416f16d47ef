import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from app.run.choice import choose
from app.run.state import ViewState
from app.server.exports import coco_json, png, points_csv
from app.theme import class_colour
from litedetr import lettering
from litedetr.lettering import Lettering, font_files, runs, written


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
    assert picture.shape == (764, 1200, 3)  # a small photo is enlarged, so that its labels can be read
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    best = class_colour(int(run.detections.labels[0]))
    assert tuple(int(best[start : start + 2], 16) for start in (1, 3, 5)) in colours


def test_csv_lists_a_querys_points(run):
    state = ViewState(step="decoder 2")
    chosen = choose(run, state)
    lines = list(csv.DictReader(io.StringIO(points_csv(run, state))))
    assert len(lines) == chosen.weights.size
    assert {line["step"] for line in lines} == {"decoder 2"}
    assert [line["scale"] for line in lines if line["head"] == "1"][:: chosen.weights.shape[2]] == list(chosen.step.scales)
    first = sum(float(line["weight"]) for line in lines if line["head"] == "1")
    assert first == pytest.approx(1, abs=1e-4)
    sixth = run.to_photo(chosen.locations).reshape(-1, 2)[5]
    np.testing.assert_allclose([float(lines[5][axis]) for axis in "xy"], sixth, atol=0.01)


def ink(text: str) -> bytes:
    """What a text looks like."""
    picture = Image.new("L", (240, 40))
    Lettering(text, 24).draw(picture, 4, 4, "white")
    return picture.tobytes()


def test_names_of_other_scripts_are_written():
    assert ink("Ноутбук") != ink("Автобус")
    if font_files():
        assert len({ink(text) for text in ("사람", "배요", "汽车", "公交", "くるま")}) == 5
        assert next(font.getname()[0] for _, font in runs("cat 고양이", 24)) == "Aileron"
    assert Lettering("사람 cat", 24).width > Lettering("cat", 24).width or not font_files()


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine that has Pillow's own font alone."""
    caches = (lettering.font_files, lettering.fonts, lettering.font_of)
    monkeypatch.setattr(lettering, "FOLDERS", ())
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def test_where_no_font_has_a_letter_the_name_is_written_safely(no_fonts, run, monkeypatch):
    assert written("고양이", "class 15", 24) == "class 15"
    assert written("고양이 cat 🐱", "class 15", 24) == "cat"
    assert written("a\nb\u202e", "class 15", 24) == "ab"
    monkeypatch.setattr(type(run.detections), "names", property(lambda found: ["고양이"] * len(found)))
    hangul = png(run, 0.0)
    monkeypatch.setattr(type(run.detections), "names", property(lambda found: [f"class {label}" for label in found.labels]))
    assert png(run, 0.0) == hangul
