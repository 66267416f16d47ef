"""Any picture in; a sentence where it cannot be used."""

import io
import struct
import tempfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from litedetr import image
from litedetr.image import PhotoError, PhotoGeometry, open_photo, photo_header


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def quarters() -> Image.Image:
    """Red, green, blue, white quarters, 40 wide and 20 high."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:10, :20], picture[:10, 20:], picture[10:, :20], picture[10:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return Image.fromarray(picture)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "YCbCr"])
def test_modes(quarters, mode):
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "LA": "TIFF"}.get(mode, "PNG")
    opened = open_photo(encoded(quarters.convert(mode), kind))
    assert opened.shape == (20, 40, 3)
    assert opened.dtype == np.uint8
    if mode in ("RGB", "RGBA", "P", "CMYK"):
        assert opened[2, 2].argmax() == 0
        assert opened[2, 35].argmax() == 1
        assert opened[15, 2].argmax() == 2


def test_sixteen_bits():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    opened = open_photo(encoded(Image.fromarray(ramp)))
    assert opened[0, 0, 0] == 0
    assert opened[7, 7, 0] == 255
    assert abs(int(opened[3, 7, 0]) - 125) < 8


def test_transparency_becomes_white(quarters):
    clear = quarters.convert("RGBA")
    clear.putalpha(0)
    assert (open_photo(encoded(clear)) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(quarters, orientation):
    """The red quarter is top left once the camera's rotation is undone."""
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = quarters.transpose(undo[orientation]) if orientation in undo else quarters
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_photo(encoded(stored, "JPEG", exif=exif, quality=95))
    assert opened.shape == (20, 40, 3)
    assert opened[3, 3].argmax() == 0
    assert opened[3, 36].argmax() == 1


def test_a_bomb_is_refused_by_its_header():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    with pytest.raises(PhotoError) as error:
        open_photo(bomb)
    assert str(error.value) == (
        "This picture is too large: 30000 × 30000 is 900 megapixels, and the limit is 50. Scale it down and send it again."
    )


@pytest.mark.parametrize(
    ("junk", "sentence"),
    [
        (b"", "This file is not a picture that can be read: send a JPEG, PNG or WebP file."),
        (b"<svg xmlns='#'/>", "This file is not a picture that can be read: send a JPEG, PNG or WebP file."),
        (None, "This picture is broken or cut off: save it again and send the new copy."),
    ],
)  # fmt: skip
def test_broken_files(quarters, junk, sentence):
    if junk is None:
        whole = encoded(quarters.resize((400, 300)), "JPEG")
        junk = whole[: len(whole) // 2]
    with pytest.raises(PhotoError) as error:
        open_photo(junk)
    assert str(error.value) == sentence


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "BytesIO", "spooled", "file", "path", "string", "pil"])
def test_whatever_holds_a_file(quarters, tmp_path, kind):
    content = encoded(quarters)
    path = tmp_path / "quarters.png"
    path.write_bytes(content)
    with tempfile.SpooledTemporaryFile() as spooled, path.open("rb") as file:
        spooled.write(content)
        spooled.seek(0)
        photo = {
            "bytes": content, "bytearray": bytearray(content), "memoryview": memoryview(content), "BytesIO": io.BytesIO(content),
            "spooled": spooled, "file": file, "path": path, "string": str(path), "pil": Image.open(path),
        }[kind]  # fmt: skip
        assert np.array_equal(open_photo(photo), np.asarray(quarters))


def test_whatever_holds_pixels(quarters):
    pixels = np.array(quarters)
    first, grey = np.ascontiguousarray(np.moveaxis(pixels, 2, 0)), np.array(quarters.convert("L"))
    assert open_photo(pixels) is pixels
    same = [first, pixels / 255, first.astype(np.float32) / 255, pixels.astype(np.int64), pixels.astype(np.uint16) * 257]
    same += [torch.from_numpy(values) for values in (pixels, first, first.astype(np.float32) / 255)]
    same += [torch.from_numpy(first / 255).to(torch.bfloat16), np.dstack((pixels, np.full((20, 40), 255, np.uint8)))]
    for values in same:
        assert np.abs(open_photo(values).astype(int) - pixels).max() <= 2, (values.shape, values.dtype)
    for values in (grey, grey[None], grey[..., None], torch.from_numpy(grey), grey / 255):
        assert np.array_equal(open_photo(values), np.repeat(grey[..., None], 3, axis=2))
    assert open_photo(np.eye(4, dtype=bool))[1, 1].tolist() == [255, 255, 255]
    assert open_photo(torch.zeros(3, 5, 3)).shape == (5, 3, 3)
    assert open_photo(np.zeros((3, 5, 3), np.uint8)).shape == (3, 5, 3)


@pytest.mark.parametrize(
    ("photo", "sentence"),
    [
        (None, "Expected a picture as a path, encoded bytes, a file object, a PIL image, an array or a tensor, got NoneType."),
        (io.StringIO("text"), "Expected a file object that gives bytes, got one that gives str"),
        (io.BytesIO(), "Nothing is left to read in this file object: call its seek\\(0\\) first."),
        ("https://example.org/cat.jpg", "This is a web address: download the picture"),
        (np.zeros((0, 4, 3), np.uint8), "This picture is empty"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"got \(2, 3, 8, 8\) uint8: give several photos to predict_batch"),
        (np.zeros((5, 5, 2), np.uint8), r"Expected the pixels of one photo .* as floats from 0 to 1, got \(5, 5, 2\) uint8\."),
        (np.full((4, 4, 3), 200.0), "float64 with values from 200 to 200: divide or clip them"),
        (np.full((4, 4, 3), np.nan), "with values from nan to nan"),
        (np.full((4, 4, 3), -1), "int64 with values from -1 to -1"),
        (np.full((4, 4), np.nan), "no finite values"),
        (np.full((4, 4, 3), "a"), "Expected the pixels"),
    ],
)
def test_what_cannot_be_used_has_a_sentence(photo, sentence):
    with pytest.raises(PhotoError, match=sentence):
        open_photo(photo)


@pytest.mark.parametrize("kind", ["float 0 to 1", "12 bits", "14 bits, thermal", "an inf", "array", "constant"])
def test_deep_grey_is_seen_with_its_contrast(kind):
    ramp = np.linspace(0, 255, 256, dtype=np.float32).reshape(16, 16)
    values = {
        "float 0 to 1": ramp / 255, "12 bits": ramp.astype(np.uint16) * 16, "14 bits, thermal": ramp.astype(np.uint16) * 4 + 7000,
        "an inf": np.where(ramp == 255, np.inf, ramp), "array": ramp.astype(np.int32) * 300 - 5, "constant": ramp * 0 + 7,
    }[kind]  # fmt: skip
    photo = values if kind == "array" else encoded(Image.fromarray(values), "TIFF")
    with pytest.warns(UserWarning, match="its own range of values"):
        seen = open_photo(photo)
    expected = ramp * 0 if kind == "constant" else ramp
    assert np.abs(seen[..., 0] - expected).max() <= 2


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
def test_a_turned_tiff_is_one_picture_in_memory_and_in_a_file(mode, tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    values = {"L": values, "I;16": values.astype(np.uint16) * 256, "RGB": np.repeat(values[..., None], 3, axis=2)}[mode]
    for orientation in range(1, 9):
        content = encoded(Image.fromarray(values), "TIFF", tiffinfo={0x0112: orientation})
        (tmp_path / "photo.tif").write_bytes(content)
        seen = open_photo(content)
        assert seen.shape == ((4, 3, 3) if orientation >= 5 else (3, 4, 3))
        with Image.open(tmp_path / "photo.tif") as opened:
            for other in (tmp_path / "photo.tif", opened):
                assert np.array_equal(open_photo(other), seen), orientation


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_as_stored(quarters, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(quarters, "JPEG", exif=exif, quality=95)
    assert open_photo(content, upright=False).shape == (20, 40, 3)
    assert open_photo(content, upright=False)[3, 3].argmax() == 0
    header = photo_header(content)
    assert (header.stored, header.orientation) == ((20, 40), orientation)
    assert header.upright == open_photo(content).shape[:2]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (480, 640), (37, 101)])
def test_prepare(size):
    photo = np.full((*size, 3), 255, np.uint8)
    pixels, geometry = image.prepare(photo, 320, 320, 32, (127.5,) * 3, (127.5,) * 3)
    assert max(geometry.resized) == 320
    assert all(side % 32 == 0 for side in geometry.resized)
    assert pixels.shape[2:] == geometry.resized == geometry.padded
    assert np.allclose(pixels, 1)


def test_published_sizes():
    assert image.resized_size((480, 640), 800, 1333) == (800, 1067)
    assert image.resized_size((400, 1000), 800, 1333) == (533, 1333)
    assert image.resized_size((427, 640), 448, 448, 32) == (288, 448)


def test_geometry_round_trip():
    geometry = PhotoGeometry(photo=(300, 400), resized=(240, 320), padded=(256, 320))
    corner = geometry.to_photo(np.array([320 / 320, 240 / 256]))
    np.testing.assert_allclose(corner, [400, 300])
    points = torch.rand(5, 2, dtype=torch.float64) * 2 - 0.5
    assert torch.allclose(geometry.from_photo(geometry.to_photo(points)), points)


def test_large_jpegs_open_at_a_part_of_their_size():
    picture = Image.effect_noise((100, 50), 60).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    large = encoded(picture.resize((4100, 2050)), "JPEG", exif=turned)
    opened = image.open_small(large)
    assert (opened.size, opened.pixels.shape) == ((4100, 2050), (2050, 1025, 3))
    assert opened.size == photo_header(large).upright
    whole = image.resize(open_photo(large), (512, 256)).astype(int)
    assert np.abs(image.resize(opened.pixels, (512, 256)) - whole).mean() < 1
    _, geometry = image.prepare(opened, 256, 512, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert geometry == PhotoGeometry((4100, 2050), (512, 256), (512, 256))
    for content in (encoded(picture.resize((3999, 1000)), "JPEG"), encoded(picture, "PNG"), Image.open(io.BytesIO(large))):
        assert np.array_equal(image.open_small(content).pixels, open_photo(content))
    assert image.open_small(opened) is opened
