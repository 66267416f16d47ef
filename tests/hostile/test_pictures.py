"""Every hostile picture through the library: a sentence, or the right pixels."""

import tracemalloc

import numpy as np
import pytest

from litedetr.image import PhotoError, open_photo, photo_size
from tests.hostile import pictures

SENTENCES = (pictures.NOT_ONE, pictures.BROKEN, pictures.HEIC, "This picture is empty: it has no pixels.")


@pytest.mark.parametrize("name", pictures.refused())
def test_refused(name, tmp_path):
    content, sentence = pictures.refused()[name]
    tracemalloc.start()
    with pytest.raises(PhotoError) as error:
        open_photo(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000
    assert str(error.value) == sentence if sentence else str(error.value) in SENTENCES
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError) as again:
        open_photo(tmp_path / name)
    assert str(again.value) == str(error.value)
    assert str(tmp_path) not in str(again.value)


@pytest.mark.parametrize("name", pictures.taken())
def test_taken(name):
    content, size = pictures.taken()[name]
    pixels = open_photo(content)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*size, 3)
    assert photo_size(content) == size
    if size == (20, 40) and not any(word in name for word in ("deep", "float", "grey", "bits")):
        corners = [pixels[4, 8], pixels[4, 32], pixels[15, 8]]
        if "hole" in name:
            assert sum((corner == 255).all() for corner in corners) <= 1  # one of the colours is clear: white
        else:
            assert [int(corner.argmax()) for corner in corners] == [0, 1, 2]
            assert all(corner.max() > 200 for corner in corners)
    if "deep" in name:
        assert int(pixels.max()) == 255
        assert int(pixels.min()) == 0  # its own range of values
        assert 30 < int(pixels[4, 8, 0]) < 90  # red as grey


def test_a_small_file_that_is_a_large_picture():
    """What fits the limit is opened, however small the file."""
    side = 5000
    content = pictures.png(side, side, rows=bytes(side * (1 + side // 8)))
    assert len(content) < 10_000
    assert open_photo(content).shape == (side, side, 3)


def test_what_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(PhotoError) as error:
        open_photo(tmp_path)
    assert str(error.value) == f"There is no picture called {tmp_path.name}: check the path."
    path = tmp_path / "photo.png"
    path.write_bytes(pictures.encoded(pictures.quarters()))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("litedetr.photos.decode.Image.open", refuse)
    with pytest.raises(PhotoError) as error:
        open_photo(path)
    assert str(error.value) == "This picture may not be read: change the permissions of the file."
