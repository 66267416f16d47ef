"""Decoding in a process of its own: the same pixels and sentences, and an end to what takes too much."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from litedetr.image import PhotoError, open_photo
from litedetr.photos.process import ANSWER, TOO_MUCH, PhotoLimits, PhotoProcess
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
        assert there.shape == (*size, 3)
        assert np.array_equal(there, open_photo(content)), name
    path = tmp_path / "photo.png"
    path.write_bytes(pictures.encoded(pictures.quarters()))
    assert np.array_equal(process.open(path), open_photo(path))
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
    assert process.open(pictures.taken()["glass.png"][0]).shape == (20, 40, 3)


def test_fifty_megapixels_pass(process):
    content = pictures.encoded(Image.effect_noise((700, 714), 60).convert("RGB").resize((7000, 7140)), "JPEG", quality=60)
    assert process.open(content).shape == (7140, 7000, 3)


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
    assert process.open(pictures.encoded(pictures.quarters())).shape == (20, 40, 3)
