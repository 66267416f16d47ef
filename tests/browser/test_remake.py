"""A run that the server dropped comes again from the visitor's own photo, in the state in which it was left."""

import json

import pytest

from app.run.state import ViewState
from tests.app import live
from tests.browser.driver import click, current, open_page
from tests.pictures import scene

HERE = "liteDetr.info.run !== {} && liteDetr.root.dataset.busy === 'no' && !liteDetr.asking && !liteDetr.pending"


@pytest.fixture
def own(page, url, tmp_path):
    """The page with a photo of the visitor's, which lies nowhere on the server any more."""
    scene(330, 210).save(tmp_path / "mine.png")
    open_page(page, url)
    before = page.evaluate("liteDetr.info.run")
    page.set_input_files('[data-part="file"]', str(tmp_path / "mine.png"))
    page.wait_for_function(HERE.format(json.dumps(before)))
    return page


def drop(page) -> str:
    """The server has the run no longer; its name."""
    run = page.evaluate("liteDetr.info.run")
    store = live.engine().store
    with store._lock:
        store._drop(run)
    return run


def wait(page, gone) -> None:
    page.wait_for_function(HERE.format(json.dumps(gone)))
    assert page.locator('[role="alert"]').is_hidden()
    assert current(page)[0].size == (210, 330)


def test_a_click_in_a_run_that_is_gone_is_answered(own):
    own.evaluate("liteDetr.change({ view: 'points', step: 'B2 high', t: '0.05' })")
    click(own, 0.3, 0.4)
    chosen = own.evaluate("liteDetr.state")
    gone = drop(own)
    click(own, 0.3, 0.4)
    wait(own, gone)
    assert own.evaluate("liteDetr.state") == chosen
    assert ViewState.from_query(chosen).step == "B2 high"


def test_many_clicks_while_it_comes_make_one_run(own):
    gone = drop(own)
    own.evaluate("for (const t of ['0.2', '0.3', '0.4']) liteDetr.change({ view: 'points', t })")
    ticket = own.evaluate("liteDetr.ticket")
    wait(own, gone)
    assert own.evaluate("liteDetr.ticket") == ticket + 1
    assert own.evaluate("liteDetr.state.t") == "0.4"
    assert own.evaluate("liteDetr.state.view") == "points"


def test_the_way_back_to_the_own_photo_makes_it_again(own):
    own.evaluate("liteDetr.change({ view: 'points', step: 'decoder 1' })")
    gone = drop(own)
    own.locator('[data-example="coffee"]').click()
    own.wait_for_function("liteDetr.info.name === 'coffee' && liteDetr.root.dataset.busy === 'no'")
    own.locator('[data-part="own"]').click()
    own.wait_for_function("liteDetr.info.example === '' && liteDetr.root.dataset.busy === 'no'")
    wait(own, gone)
    assert own.evaluate("liteDetr.state.step") == "decoder 1"


def test_what_a_view_computes_begins_again(own):
    own.evaluate("liteDetr.change({ view: 'mattered' })")
    own.wait_for_function("!document.querySelector('[data-part=compute]').hidden")
    gone = drop(own)
    own.locator('[data-part="compute"]').click()
    wait(own, gone)
    own.wait_for_function("liteDetr.work.ticket === null && liteDetr.work.job?.done")


def test_files_of_a_run_that_is_gone(own):
    gone = drop(own)
    with own.expect_download() as download:
        own.locator('[data-part="json"]').click()
    assert json.loads(download.value.path().read_text(encoding="utf-8"))["images"][0]["file_name"] == "mine.png"
    wait(own, gone)


def test_without_the_photo_there_is_a_sentence(own):
    drop(own)
    own.evaluate("() => { liteDetr.kept = liteDetr.upload; liteDetr.upload = () => Promise.reject(new Error('gone')); }")
    click(own, 0.5, 0.5)
    own.wait_for_function("!document.querySelector('[role=alert]').hidden")
    assert "no longer kept" in own.locator('[role="alert"]').inner_text()
    own.evaluate("() => { liteDetr.upload = liteDetr.kept; }")
