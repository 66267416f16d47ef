"""What a visitor reads when something goes wrong inside."""

import pytest

from app.i18n import say
from tests.app import live
from tests.app.faults import full_disk, hooked, on_the_gpu
from tests.browser.driver import current, open_page, send
from tests.pictures import scene


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    scene(140, 100).save(path)
    return path


def said(page) -> str:
    return page.inner_text('[data-part="error-text"]')


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_a_photo_seen_at_half_its_size(page, url, photo, lang):
    def small_gpu(given) -> None:
        if max(given[0].shape[-2:]) > live.SIDE // 2:
            on_the_gpu(given)

    open_page(page, url, f"t=0&lang={lang}")
    with hooked(live.engine().detector.backbone, small_gpu):
        send(page, photo)
    assert said(page) == say(lang, "note.smaller")
    assert current(page)[0].spared == "smaller"
    send(page, photo)
    assert page.locator('[data-part="error"]').is_hidden()
    assert current(page)[0].spared == ""


def test_a_full_disk_is_said_and_the_page_goes_on(page, url, photo):
    open_page(page, url)
    with full_disk(1000):
        send(page, photo)
    assert said(page) == say("en", "error.upload")
    send(page, photo)
    assert current(page)[0].size == (100, 140)
