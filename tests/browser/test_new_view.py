"""A new view is its file, its texts and a line in the list: the page shows it, links to it and hands it out."""

from importlib import import_module

import pytest

from app.i18n import texts
from app.run.state import LANGUAGES
from app.ui import build, launch_options
from app.views import VIEWS
from tests.app import live

TOY = """
from app.drawing.canvas import canvas
from app.views.view import View


def drawing(run, state):
    height, width = run.size
    middle = {"type": "scatter", "mode": "markers", "name": "middle", "x": [width / 2], "y": [height / 2]}
    return canvas(run, [middle])


def summary(run, state):
    return {"caption": "The middle of " + run.name, "facts": [["Middle", "1"]]}


def needs(run, state):
    return "It needs a round photo."


VIEW = View("toy", drawing, summary, needs=needs)
"""


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A page with one view more."""
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VIEWS, "toy", import_module("toy").VIEW)
    for lang in LANGUAGES:
        monkeypatch.setitem(texts(lang), "view.toy", "A toy")
    blocks = build(live.engine())
    blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options(live.engine()))
    yield blocks.local_url.rstrip("/")
    blocks.close(verbose=False)


def test_a_new_view_has_its_tab_its_figure_its_link_and_its_download(page, address):
    ready = "window.liteDetr?.info && document.querySelector('.ld').dataset.busy === 'no' && !liteDetr.asking"
    page.goto(f"{address}/?example=cat")
    page.wait_for_function(ready)
    tab = page.get_by_role("tab", name="A toy")
    assert tab.get_attribute("title") == "It needs a round photo."
    tab.click()
    page.wait_for_url("**view=toy*")
    page.reload()  # the link alone
    page.wait_for_function(ready)
    assert page.locator("[role=tab][aria-selected=true]").text_content() == "A toy"
    assert page.locator('[data-part="line"]').text_content() == "The middle of cat"
    assert page.evaluate("document.querySelector('.ld-plot').data.map(({ name }) => name)") == ["middle"]
    assert page.locator('[data-part="view-facts"]').text_content() == "Middle1"
    page.locator('[data-part="take-away"]').click()
    with page.expect_download() as downloaded:
        page.locator('[data-file="html"]').click()
    written = downloaded.value.path().read_text(encoding="utf-8")
    assert "A toy · cat" in written
    assert '"name":"middle"' in written
    page.goto("about:blank")  # the next page may have the same address
