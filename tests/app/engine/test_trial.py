"""A visitor's model over its first photo, in a process of its own."""

import threading
from pathlib import Path

import pytest

from app.engine.jobs import Cancelled
from app.engine.trial import try_apart
from litedetr.weights import WeightsError
from litedetr.weights.limits import Limits
from tests.small_models import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "0123abcd"
    small("lite-dino-mobilenet").save_pretrained(folder)
    return folder


def test_more_memory_than_allowed_ends_it_there(folder):
    """By its config it needs less: what it really takes is bounded, too."""
    limits = Limits(memory_bytes=10_000_000, advice=", or raise LITEDETR_LARGEST_MEMORY_MB where the page runs")
    with pytest.raises(WeightsError) as error:
        try_apart(folder, "owner/tiny", limits, lambda: None)
    assert str(error.value) == (
        "expected a model that needs at most 10 MB and 120 seconds for a photo, got one that needs more in owner/tiny: choose a "
        "smaller one, or raise LITEDETR_LARGEST_MEMORY_MB where the page runs."
    )


def test_it_ends_where_nobody_waits(folder):
    def leave() -> None:
        raise Cancelled

    before = threading.active_count()
    with pytest.raises(Cancelled):
        try_apart(folder, "owner/tiny", Limits(), leave)
    assert threading.active_count() == before


def test_time_ends_it(folder):
    with pytest.raises(WeightsError, match="needs more in owner/tiny"):
        try_apart(folder, "owner/tiny", Limits(), lambda: None, seconds=-179.0)
