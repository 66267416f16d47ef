"""The models that the page offers, those in memory, and a run with another one."""

import pytest

from app.engine import models as models_module
from app.engine.models import Models, hub_is_open, limits
from app.i18n import say
from app.run.model_list import describe, named, offered
from app.run.state import HUB_ID, ViewState
from app.server.events import run_events
from litedetr.config import preset
from litedetr.weights import WeightsError
from litedetr.weights.published import catalogue
from tests.apart import collected


def test_the_list_and_the_environment(monkeypatch, tmp_path):
    for name in ("LITEDETR_MODELS", "LITEDETR_PUBLISHED"):
        monkeypatch.delenv(name, raising=False)
    shown = offered()
    assert {"id": "published/lite-dino-r50-h3l1-2x3", "group": "published",
            "name": "Lite-DINO · ResNet-50 · H3L1-(2+1)x3 · AP 50.4 · 191 MB · 152 GMACs"} in shown  # fmt: skip
    assert "SenseTime/deformable-detr-with-box-refine" in {entry["id"] for entry in shown}
    assert all(HUB_ID.match(entry["id"]) for entry in shown)
    assert len({entry["name"] for entry in shown}) == len(shown)
    assert [entry["group"] for entry in shown].count("published") == len(catalogue())
    (tmp_path / "my model").mkdir()
    more = f" me/mine = My model,me/other, not a name ,SenseTime/deformable-detr=Again,{tmp_path}/my model"
    monkeypatch.setenv("LITEDETR_MODELS", more)
    assert [entry for entry in offered() if entry["group"] == "host"] == [
        {"id": "SenseTime/deformable-detr", "name": "Again", "group": "host"},
        {"id": "me/mine", "name": "My model", "group": "host"},
        {"id": "me/other", "name": "", "group": "host"},
        {"id": "local/my-model", "name": "my model", "group": "host"},
    ]
    assert str(tmp_path) not in str(offered()), "no visitor learns where the host's folders lie"
    monkeypatch.setenv("LITEDETR_MODELS", "")
    monkeypatch.setenv("LITEDETR_PUBLISHED", "none")
    assert "published" not in {entry["group"] for entry in offered()}
    monkeypatch.setenv("LITEDETR_PUBLISHED", "dino-r50, h-detr-r50, another")
    others = [entry for entry in offered() if entry["group"] != "embedded"]
    assert [entry["id"] for entry in others[:2]] == ["published/dino-r50", "published/h-detr-r50"]
    assert {entry["group"] for entry in others[2:]} <= {"guests"}


def test_the_list_is_loaded_by_name_within_the_limits_of_work(loads, monkeypatch, tmp_path):
    monkeypatch.setenv("LITEDETR_MODELS", str(tmp_path))
    models = Models("embedded")
    models.get("published/dino-r50")
    models.get(f"local/{tmp_path.name}")
    assert loads == [("dino-r50", None), (str(tmp_path), None)]
    monkeypatch.setenv("LITEDETR_LARGEST_GMACS", "200")
    with pytest.raises(WeightsError, match=r"^expected a model of at most 200 GMACs a photo, got "):
        models.get("published/h-detr-r50")


def test_names():
    assert describe(preset("lite-dino-mobilenet")).startswith("Lite-DINO · MobileNetV2 · H3L1-")
    assert describe(preset("deformable-detr-r50")) == "Deformable DETR · ResNet-50"
    assert describe(preset("lite-h-detr-swin-t-h2l2-2x3")) == "Lite-H-DETR · Swin-T · H2L2-(2+1)x3"


@pytest.fixture
def loads(monkeypatch, detector, tmp_path):
    """Every load of a model: its source, and whether this machine's token was used, without limits."""
    made = []

    def load(source, revision=None, token=None, progress=None, limits=None):
        assert (token is None) == (limits is None)
        made.append((source, token))
        return detector

    monkeypatch.setattr(models_module.Detector, "from_pretrained", load)
    monkeypatch.setattr(models_module, "find", lambda source, **terms: tmp_path)
    monkeypatch.setattr(models_module, "try_apart", lambda *_: None)
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


def test_where_the_page_ends_jobs_end_with_a_sentence(engine, monkeypatch):
    monkeypatch.setattr(engine.jobs, "closed", True)
    assert collected(run_events(engine, None, "cat", "ko", ""))[-1] == {"error": say("ko", "error.closing")}


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


def test_a_folders_card_names_its_model(tmp_path):
    config = preset("lite-dino-nanodet-g")
    assert named("embedded", config) == named(str(tmp_path), config) == describe(config)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# My cats\n\n# Another heading\n", encoding="utf-8")
    assert named(str(tmp_path), config) == f"My cats · {describe(config)}"
