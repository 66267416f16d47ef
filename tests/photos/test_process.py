"""Decoding in a process of its own: the same pixels and sentences, and an end to what takes too much."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from litedetr import Detector
from litedetr.image import PhotoError, open_photo
from litedetr.photos.process import ANSWER, TOO_MUCH, PhotoLimits, PhotoProcess
from litedetr.shipped import shipped
from tests.hostile import pictures


@pytest.fixture(scope="module")
def process() -> PhotoProcess:
    return PhotoProcess()


def endless(process: PhotoProcess, poll) -> None:
    """A photo that takes longer than anybody waits, with no limit of time that a test would see."""
    patient = PhotoProcess(PhotoLimits(seconds=60))
    patient._control = process._control
    patient.open(pictures.costly()["odd white.ppm"][0], poll)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:A grey picture")
def test_the_same_pixels(process, tmp_path):
    for name, (content, size) in pictures.taken().items():
        there = process.open(content)
        assert there.size == size
        assert np.array_equal(there.pixels, open_photo(content)), name
    path = tmp_path / "photo.png"
    path.write_bytes(pictures.encoded(pictures.quarters()))
    assert np.array_equal(process.open(path).pixels, open_photo(path))
    with pytest.warns(UserWarning, match="its own range of values"):
        process.open(pictures.taken()["deep.tif"][0])


def test_the_same_sentences(process, tmp_path):
    for name, (content, sentence) in pictures.refused().items():
        with pytest.raises(PhotoError) as error:
            process.open(content)
        with pytest.raises(PhotoError) as here:
            open_photo(content)
        assert str(error.value) == str(here.value) == (sentence or str(here.value)), name
    for wrong, words in ((tmp_path / "none.png", "There is no picture called none.png"), (3, "got int")):
        with pytest.raises(PhotoError, match=words):
            process.open(wrong)


@pytest.mark.parametrize("name", [name for name, (_, words) in pictures.costly().items() if words])
def test_more_parts_than_any_picture_needs(name, process):
    content, words = pictures.costly()[name]
    for opened in (open_photo, process.open):
        with pytest.raises(PhotoError) as error:
            opened(content)
        assert str(error.value) == (
            f"This picture has more {words} than any picture needs: save it again as a JPEG and send the new copy."
        )


def test_more_time_or_memory_than_its_size_needs(process):
    content = pictures.costly()["odd white.ppm"][0]
    for limits in (PhotoLimits(seconds=1, seconds_per_megapixel=0), PhotoLimits(seconds=60, megabytes=20)):
        with pytest.raises(PhotoError) as error:
            PhotoProcess(limits).open(content)
        assert str(error.value) == TOO_MUCH
    assert process.open(pictures.taken()["glass.png"][0]).size == (20, 40)


def test_fifty_megapixels_pass(process):
    content = pictures.encoded(Image.effect_noise((700, 714), 60).convert("RGB").resize((7000, 7140)), "JPEG", quality=60)
    opened = process.open(content)
    assert (opened.size, opened.pixels.shape) == ((7140, 7000), (3570, 3500, 3))


def test_a_large_jpeg_gives_the_same_boxes_everywhere(process, tmp_path):
    """It is decoded at half its size, by the page, by `predict`, and in a folder; the boxes are those of the whole one."""
    detector = Detector.from_pretrained("embedded").optimize("float32")
    picture = Image.open(shipped("assets/examples") / "astronaut.jpg")
    content = pictures.encoded(picture.resize((4000, 3000), Image.Resampling.BICUBIC), "JPEG", quality=92)
    (file := tmp_path / "large.jpg").write_bytes(content)
    opened = process.open(content)
    assert (opened.size, opened.pixels.shape) == ((3000, 4000), (1500, 2000, 3))
    found = [detector.predict(photo) for photo in (content, file, opened)]
    whole = detector.predict(open_photo(content))
    assert len(whole)
    for each in found:
        assert each.photo_size == (3000, 4000)
        assert np.array_equal(each.boxes, found[0].boxes)
        assert np.array_equal(each.scores, found[0].scores)
        assert np.array_equal(each.labels, whole.labels)
        assert np.abs(each.boxes - whole.boxes).max() < 0.005 * 4000
        assert np.abs(each.scores - whole.scores).max() < 0.02
    assert found[0].drawn_on(opened.pixels).size == (2000, 1500)


def test_nobody_waits_any_more(process, monkeypatch):
    class Left(Exception):
        pass

    process.start()
    pids = []
    kill = os.kill

    def leave() -> None:
        raise Left

    monkeypatch.setattr("litedetr.photos.process.os.kill", lambda pid, signal: (pids.append(pid), kill(pid, signal)))
    with pytest.raises(Left):
        endless(process, leave)
    end = time.monotonic() + 20
    while os.path.exists(f"/proc/{pids[0]}") and time.monotonic() < end:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pids[0]}")
    assert ANSWER.size == 8


def test_a_process_that_has_gone_is_started_again():
    process = PhotoProcess()
    process.start()
    process._control.shutdown(2)
    assert process.open(pictures.encoded(pictures.quarters())).size == (20, 40)
