"""What holds for any picture, any link and any bytes."""

import io
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.run.state import ViewState
from litedetr.image import PhotoError, open_photo, photo_size, resized_size
from tests.hostile import fuzz

quick = settings(max_examples=30, deadline=None, database=None, derandomize=True)

TURNS = {1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.transpose(1, 0, 2),
         6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p, 2).transpose(1, 0, 2), 8: np.rot90}  # fmt: skip
"""What a viewer does with pixels that were stored with each of EXIF's orientations."""

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = scalars | st.lists(scalars, max_size=3)
queries = (
    st.dictionaries(st.sampled_from(fuzz.PARAMETERS) | st.text(), st.text() | st.sampled_from(fuzz.WORDS) | values)
    | st.text()
    | values
)


@quick
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})]),
    st.sampled_from(sorted(TURNS)),
    st.integers(0, 2**32 - 1),
)
def test_pixels_come_as_they_are_turned_upright(width, height, form, orientation, seed):
    kind, options = form
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **options)
    seen = open_photo(buffer.getvalue())
    assert np.array_equal(seen, TURNS[orientation](pixels))
    assert photo_size(buffer.getvalue()) == seen.shape[:2]


@quick
@given(st.binary(max_size=200), st.sampled_from([b"", *(content[:30] for content in fuzz.pictures())]))
def test_any_bytes_are_a_picture_or_a_sentence(tail, head):
    try:
        seen, sentence = open_photo(head + tail), ""
    except PhotoError as error:
        seen, sentence = None, str(error)
    assert (sentence.startswith("This ") and sentence.endswith(".")) if seen is None else seen.dtype == np.uint8


@quick
@given(queries)
def test_any_link_is_a_state(query):
    state = ViewState.from_query(query)
    assert re.fullmatch("[a-z_]{1,20}", state.view)
    assert state.threshold is None or 0 <= state.threshold <= 1
    kept = ViewState.from_query(state.to_query())
    assert ViewState.from_query(kept.to_url()) == ViewState.from_query(kept.to_query()) == kept


@quick
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(32, 1333), st.integers(32, 1333), st.sampled_from([1, 32]))
def test_any_shape_has_a_bounded_size_in_the_network(height, width, short, long, divisor):
    size = resized_size((height, width), short, long, divisor)
    assert all(side % divisor == 0 and side > 0 for side in size)
    assert max(size) <= max(long, short) + divisor


def test_the_fuzz_script():
    """A few cases of each reader; ``python -m tests.hostile.fuzz`` has 100,000."""
    tallies = fuzz.fuzz(900, seed=1)
    assert [line for tally in tallies.values() for line in tally.broken] == []
    assert all(tally.read + tally.refused == 150 for tally in tallies.values())
    assert all(tally.read > 0 for tally in tallies.values())
