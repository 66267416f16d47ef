"""The model picker, with a Hub on loopback."""

import json
import threading

import pytest
from huggingface_hub import constants

from app.views import VIEWS
from tests.browser.conftest import PHONE
from tests.browser.driver import assert_drawn, assert_shown, open_page, settle
from tests.guests import zoo
from tests.guests.conftest import guest
from tests.hub.conftest import point_at, read
from tests.hub.server import Hub
from tests.small_models import small
from tests.weights.conftest import NAME as PUBLISHED
from tests.weights.conftest import checkpoint, host, host_server, path  # noqa: F401  fixtures

NAME = "owner/tiny"
OTHERS = {
    "owner/h2l2": {"schedule": "H2L2-(2+1)x3"},
    "owner/full": {"schedule": "H4L0-(1+1)x6", "key_aware": False, "low_ffn": None},
}
GUESTS = {"owner/rt-detr-v2": "rt_detr_v2", "owner/d-fine": "d_fine"}
"""Models of transformers with random weights."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    hub = Hub()
    detector = small("lite-dino-mobilenet")
    folder = tmp_path_factory.mktemp("tiny")
    detector.save_pretrained(folder)
    hub.add(NAME, read(folder), gate=threading.Event())
    for name, changes in OTHERS.items():
        folder = tmp_path_factory.mktemp("other")
        small("lite-dino-mobilenet", **changes).save_pretrained(folder)
        hub.add(name, read(folder))
    for name, kind in GUESTS.items():
        folder = tmp_path_factory.mktemp(kind)
        guest(kind).model.save_pretrained(folder)
        size = {"size": {"height": zoo.SIDE, "width": zoo.SIDE}}
        (folder / "preprocessor_config.json").write_text(json.dumps(size), encoding="utf-8")
        hub.add(name, read(folder))
    with pytest.MonkeyPatch.context() as monkeypatch:
        point_at(hub.url, tmp_path_factory.mktemp("cache"), monkeypatch)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**17)  # each is an event for the page
        yield hub
    hub.close()


def choose(page, name: str) -> None:
    page.click('[data-part="model-button"]')
    page.fill('[data-part="model-id"]', name)
    page.keyboard.press("Enter")


def shown(page) -> None:
    page.wait_for_function("document.querySelector('.ld').dataset.busy === 'no'")


def test_download_run_and_back(page, url, hub):
    open_page(page, url)
    own = page.inner_text('[data-part="model"]')
    choose(page, NAME)
    page.wait_for_selector('[data-part="progress"]:not([hidden])')
    assert page.inner_text('[data-part="status"]').startswith("Downloading owner/tiny: ")
    hub.repos[NAME].gate.set()
    page.wait_for_function("liteDetr.info.source === 'owner/tiny'")
    shown(page)
    assert page.inner_text('[data-part="model"]') == NAME
    assert "model=owner%2Ftiny" in page.url
    assert page.locator(".ld-stop[data-kind='decoder']").count() == 2  # the other model's own rail
    page.click('[data-part="model-button"]')
    page.click('.ld-choice[data-model=""]')
    page.wait_for_function("liteDetr.info.source === ''")
    shown(page)
    assert page.inner_text('[data-part="model"]') == own
    assert "model=" not in page.url


def test_a_failure_is_said_and_the_own_model_takes_over(page, url, hub):
    open_page(page, url)
    page.click('[data-lang="ko"]')
    choose(page, "owner/none")
    page.wait_for_selector('[data-part="error"]:not([hidden])')
    shown(page)
    assert page.inner_text('[data-part="error-text"]') == (
        'The Hub has no model owner/none, or none that you may read: check the spelling, or log in with "hf auth login" if it is '
        "private. 대신 이 페이지의 기본 모델을 썼습니다."
    )
    assert page.evaluate("[liteDetr.info.source, liteDetr.state.model ?? '']") == ["", ""]
    page.click('[data-lang="en"]')


def test_the_picker_fits_a_phone_and_closes_by_keyboard(page, url):
    open_page(page, url)
    page.set_viewport_size(PHONE)
    page.focus('[data-part="model-button"]')
    page.keyboard.press("Enter")
    box = page.locator('[data-part="models"]').bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("Escape")
    assert not page.locator('[data-part="models"]').is_visible()


@pytest.mark.parametrize("name", OTHERS)
def test_every_view_shows_another_encoder_in_numbers(page, url, hub, name):
    open_page(page, url, "example=cat&t=0&box=0.2,0.2,0.6,0.7")
    choose(page, name)
    page.wait_for_function("name => liteDetr.info.source === name", arg=name)
    shown(page)
    page.evaluate("liteDetr.change({ box: '0.2,0.2,0.6,0.7' })")
    settle(page)
    for view in VIEWS:
        page.locator(f'[role="tab"][data-view="{view}"]').click()
        settle(page)
        run, state, _ = assert_shown(page)
        assert (run.source, state.view) == (name, view)
        assert run.config.schedule == OTHERS[name]["schedule"]
        assert page.locator('[data-part="error"]').is_hidden()


@pytest.mark.parametrize("name", GUESTS)
def test_a_model_of_another_code_base(page, url, hub, name):
    open_page(page, url, "example=cat&t=0&q=0")
    choose(page, name)
    page.wait_for_function("name => liteDetr.info.source === name", arg=name)
    shown(page)
    assert page.locator(".ld-stop[data-kind='decoder']").count() == 2
    assert page.locator(".ld-stop[data-kind='all'], .ld-stop[data-kind='high']").count() == 0, "the rail is its trace's own steps"
    for view in VIEWS:
        page.locator(f'[role="tab"][data-view="{view}"]').click()
        settle(page)
        run, state, summary = assert_shown(page)
        assert (run.source, state.view) == (name, view)
        assert page.locator('[data-part="error"]').is_hidden()
        says = page.locator(f'[role="tab"][data-view="{view}"]').get_attribute("title") or ""
        if VIEWS[view].own:
            assert "comes from transformers" in summary["notes"][0]
            assert "comes from transformers" in says
        else:
            assert "comes from transformers" not in says
    page.locator('[role="tab"][data-view="points"]').click()
    page.evaluate("liteDetr.change({ q: '2', step: 'decoder 2' })")
    settle(page)
    assert_drawn(page)


def test_the_authors_weights_one_click_away(page, url, host, path, checkpoint):  # noqa: F811
    content = host.add(path, checkpoint, gate=threading.Event())
    open_page(page, url)
    page.click('[data-part="model-button"]')
    assert "AP 50.4 · 191 MB · 152 GMACs" in page.inner_text(f'[data-model="published/{PUBLISHED}"]')
    groups = page.locator(".ld-choices-of").all_inner_texts()
    assert groups[:2] == ["Trained as this page's own model", "Published by their authors"]
    page.click(f'[data-model="published/{PUBLISHED}"]')
    page.wait_for_function("document.querySelector('[data-part=status]').innerText.startsWith('Downloading')")
    page.evaluate("liteDetr.onEvent({ ticket: liteDetr.running, download: [191e6, 191e6] })")
    assert page.inner_text('[data-part="status"]') == f"published/{PUBLISHED} is here: converting and loading …"
    content.gate.set()
    page.wait_for_function(f"liteDetr.info.source === 'published/{PUBLISHED}'", timeout=120_000)
    shown(page)
    assert f"model=published%2F{PUBLISHED}" in page.url
