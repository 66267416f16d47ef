"""The models that the page offers, those in memory, and a run with another one."""

import pytest

from app.engine import models as models_module
from app.engine.models import Models, hub_is_open, limits
from app.run.model_list import describe, offered
from app.run.state import HUB_ID, ViewState
from app.server.events import run_events
from litedetr.config import preset
from litedetr.weights import WeightsError
from tests.apart import collected


def test_the_list_and_the_environment(monkeypatch):
    monkeypatch.delenv("LITEDETR_MODELS", raising=False)
    listed = offered()
    assert listed[0]["id"] == "SenseTime/deformable-detr-with-box-refine"
    assert all(HUB_ID.match(entry["id"]) and entry["name"] for entry in listed)
    monkeypatch.setenv("LITEDETR_MODELS", " me/mine = My model,me/other, not a name ,SenseTime/deformable-detr=Again")
    more = offered()
    assert more[len(listed) :] == [{"id": "me/mine", "name": "My model"}, {"id": "me/other", "name": ""}]
    assert {"id": "SenseTime/deformable-detr", "name": "Again"} in more


def test_names():
    assert describe(preset("lite-dino-mobilenet")).startswith("Lite-DINO · MobileNetV2 · H3L1-")
    assert describe(preset("deformable-detr-r50")) == "Deformable DETR · ResNet-50"
    assert describe(preset("lite-h-detr-swin-t-h2l2-2x3")) == "Lite-H-DETR · Swin-T · H2L2-(2+1)x3"


@pytest.fixture
def loads(monkeypatch, detector):
    """Every load of a model: its source, and whether this machine's token was used, without limits."""
    made = []

    def load(source, revision=None, token=None, progress=None, limits=None):
        assert (token is None) == (limits is None)
        made.append((source, token))
        return detector

    monkeypatch.setattr(models_module.Detector, "from_pretrained", load)
    return made


def test_two_in_memory_the_own_one_stays(loads):
    models = Models("embedded")
    own = models.get()
    first = models.get("a/first")
    assert models.get("a/first") is first
    models.get("a/second")
    assert "a/first" not in models
    assert models.get() is own
    assert [source for source, _ in loads] == ["embedded", "a/first", "a/second"]


def test_a_visitor_gets_neither_folders_nor_private_models(loads):
    models = Models("embedded")
    for source in ("assets/weights", "../main", "/etc", "a/b/c", "x" * 300):
        with pytest.raises(WeightsError, match=r"^expected a model.s name on the Hub like"):
            models.get(source)
    models.get("a/typed")
    models.get("SenseTime/deformable-detr")
    assert loads == [("a/typed", False), ("SenseTime/deformable-detr", None)]


def test_the_host_closes_the_box_or_names_the_owners(loads, monkeypatch):
    models = Models("embedded")
    monkeypatch.setenv("LITEDETR_OWNERS", "Me, the-team")
    models.get("me/mine")
    with pytest.raises(WeightsError) as error:
        models.get("a/typed")
    assert str(error.value) == "This page loads models of Me, the-team alone, and those of its list: choose one of them."
    monkeypatch.setenv("LITEDETR_HUB", "off")
    for source in ("the-team/other", "a/typed"):
        with pytest.raises(WeightsError, match=r"^This page loads the models of its list alone: choose one of them\.$"):
            models.get(source)
    assert not hub_is_open()
    models.get("SenseTime/deformable-detr")  # of the list
    assert [source for source, _ in loads] == ["me/mine", "SenseTime/deformable-detr"]


def test_the_environments_numbers(monkeypatch):
    monkeypatch.setenv("LITEDETR_LARGEST_MB", "200")
    monkeypatch.setenv("LITEDETR_CACHE_MB", "much")
    given = limits()
    assert (given.file_bytes, given.gmacs, given.cache_bytes) == (200_000_000, 1000, 5_000_000_000)
    monkeypatch.setenv("LITEDETR_CACHE_MB", "1")
    assert limits().cache_bytes == 400_000_000


def test_a_link_holds_the_model():
    state = ViewState(model="owner/some-model_v1.2")
    assert ViewState.from_query(state.to_query()) == state
    assert state.to_query() == {"model": "owner/some-model_v1.2"}
    for junk in ("x", "../x", "a/b/c", "a/b\n", "é/x", ""):
        assert ViewState.from_query({"model": junk}).model == ""


def test_the_own_model_takes_over(engine, monkeypatch):
    def get(source="", progress=None):
        if source:
            progress(5, 10)
            raise WeightsError("There is none.")
        return detector

    detector = engine.detector
    monkeypatch.setattr(engine.models, "get", get)
    events = collected(run_events(engine, None, "cat", "en", "owner/none"))
    assert events[-1]["refused"] == "There is none."
    run = engine.store.get(events[-1]["run"])
    assert (run.source, run.example) == ("", "cat")
