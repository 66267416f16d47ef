"""A run that the server dropped comes again from the visitor's own photo, in the state in which it was left."""

import json
import shutil

import pytest
from gradio.utils import get_upload_folder

from app.run.state import ViewState
from tests.app import live
from tests.app.faults import half_way
from tests.browser.driver import click, current, open_page, settle
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


def gone_with_the_server(page) -> str:
    """The run and the photo are no longer there, as after a restart; the run's name."""
    run = drop(page)
    shutil.rmtree(get_upload_folder(), ignore_errors=True)
    return run


def reloaded(page) -> None:
    """As Gradio does where its server was away, and browsers with a tab that slept for hours."""
    page.reload()
    page.wait_for_function("window.liteDetr?.info && liteDetr.root.dataset.busy === 'no' && !liteDetr.asking")


def test_after_a_restart_and_a_reload_the_own_photo_is_sent_again(own):
    own.evaluate("liteDetr.change({ view: 'points', step: 'B2 high', t: '0.05' })")
    settle(own)
    gone = gone_with_the_server(own)
    reloaded(own)
    wait(own, gone)
    assert own.evaluate("[liteDetr.state.view, liteDetr.state.step, liteDetr.info.name]") == ["points", "B2 high", "mine.png"]
    gone = gone_with_the_server(own)
    own.evaluate("liteDetr.analyse(liteDetr.last)")  # another model, say, for a photo that is no longer there
    wait(own, gone)
    own.locator('[data-example="coffee"]').click()
    own.wait_for_function("liteDetr.info.name === 'coffee' && liteDetr.root.dataset.busy === 'no'")
    kept = "new Promise((done) => { indexedDB.open('lite-detr').onsuccess = ({ target: { result } }) => {"
    kept += " result.transaction('photos').objectStore('photos').count().onsuccess = (event) => done(event.target.result); }; })"
    assert own.evaluate(kept) == 0  # with the example the photo has gone


def test_a_run_and_a_views_work_go_on_after_a_reload_in_their_midst(own, tmp_path):
    scene(200, 140).save(tmp_path / "next.png")
    with half_way(live.engine()) as (reached, go, _):
        own.set_input_files('[data-part="file"]', str(tmp_path / "next.png"))
        assert reached.wait(60)
        shutil.rmtree(get_upload_folder(), ignore_errors=True)
        own.reload()
        go.set()
        own.wait_for_function("window.liteDetr?.info?.name === 'next.png' && liteDetr.root.dataset.busy === 'no'")
    own.evaluate("liteDetr.change({ view: 'mattered', t: '0' })")
    settle(own)
    own.locator('[data-part="compute"]').click()
    reloaded(own)
    own.wait_for_function("liteDetr.work.ticket === null && liteDetr.work.job?.done")
    assert own.evaluate("liteDetr.info.name") == "next.png"
    own.evaluate("sessionStorage.clear()")
