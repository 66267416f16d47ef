"""The published check, with a small model in the place of the Hub's."""

import pytest
import torch
from PIL import ExifTags, Image

from litedetr.cli import main
from litedetr.weights import WeightsError, verify
from tests.small_models import small

NAME = "SenseTime/deformable-detr"


@pytest.fixture
def picture(photo, tmp_path, monkeypatch):
    detector = small("deformable-detr-r50")
    monkeypatch.setattr(verify.Detector, "from_pretrained", lambda source: detector)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 3
    Image.fromarray(photo).rotate(180).save(tmp_path / "39769.png", exif=turned)  # opened as all pictures are
    with torch.no_grad():
        output = detector(verify.pixels(Image.fromarray(photo), detector))
    numbers = tuple(output.logits[0, 0, :3].tolist()), tuple(output.boxes[0, 0, :3].tolist())
    monkeypatch.setitem(verify.PUBLISHED, NAME, numbers)
    return tmp_path / "39769.png"


def test_the_same(picture, capsys):
    assert main(["verify", NAME, "--photo", str(picture)]) == 0
    assert capsys.readouterr().out.endswith("largest difference 0.00000: the same\n")


def test_different(picture, monkeypatch, capsys):
    logits, box = verify.PUBLISHED[NAME]
    monkeypatch.setitem(verify.PUBLISHED, NAME, ((logits[0] + 0.5, *logits[1:]), box))
    assert main(["verify", NAME, "--photo", str(picture)]) == 1
    assert "largest difference 0.50000: DIFFERENT (at most 0.01 is allowed)" in capsys.readouterr().out


def test_preprocessing():
    detector = small("deformable-detr-r50", short_side=800, long_side=1333)
    assert verify.pixels(Image.new("RGB", (640, 480)), detector).shape == (1, 3, 800, 1066)
    assert verify.pixels(Image.new("RGB", (480, 640)), detector).shape == (1, 3, 1066, 800)
    assert verify.pixels(Image.new("RGB", (2000, 500)), detector).shape == (1, 3, 333, 1333)
    grey = verify.pixels(Image.new("RGB", (100, 100), (124, 116, 104)), detector)
    assert grey.abs().max() < 0.01


def test_messages(tmp_path):
    with pytest.raises(WeightsError) as error:
        verify.verify("owner/name")
    assert str(error.value) == f"expected one of {', '.join(verify.PUBLISHED)}, whose numbers are published, got 'owner/name'"
    with pytest.raises(WeightsError, match=r"Download it elsewhere and give it with --photo\.$"):
        verify.verify(NAME, tmp_path / "none.jpg")
