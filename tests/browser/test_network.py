"""The server away for a while: one sentence, nothing lost, and what was done is done when it is back."""

import pytest
from PIL import Image

from app.i18n import say
from tests.browser.driver import current, open_page
from tests.pictures import scene

AWAY = "!document.querySelector('[data-part=error]').hidden && document.querySelector('[data-part=error-text]').textContent"
QUIET = """document.querySelector('[data-part=error]').hidden && !liteDetr.asking && !liteDetr.pending
    && liteDetr.root.dataset.busy === 'no'"""


@pytest.fixture
def offline(page, url):
    """Goes off and on again; the page is told nothing."""
    open_page(page, url, "t=0&example=cat&view=points&at=0.4,0.5")
    yield lambda off: page.context.set_offline(off)
    page.context.set_offline(False)


def wait_away(page, lang="en"):
    page.wait_for_function(f"({AWAY}) === {say(lang, 'error.away')!r}")


@pytest.mark.parametrize(
    ("act", "state"),
    [
        (lambda page: page.evaluate("void liteDetr.look({ pick: [0.7, 0.2] })"), {"q": ""}),
        (lambda page: page.evaluate("void liteDetr.change({ view: 'onion' })"), {"view": "onion"}),
        (lambda page: page.evaluate("void liteDetr.speak('ko')"), {"lang": "ko"}),
        (lambda page: page.evaluate("liteDetr.tour.enter(3)"), {"tour": "3", "view": "film", "example": "astronaut"}),
    ],
    ids=["click", "tab", "language", "tour stop"],
)
def test_what_is_done_without_a_server_is_done_when_it_is_back(page, offline, act, state):
    offline(True)
    act(page)
    wait_away(page, state.get("lang", "en"))
    if "tour" not in state:  # another run has a state of its own
        page.evaluate("void liteDetr.change({ head: '2' })")  # something else meanwhile
    offline(False)
    page.wait_for_function(QUIET)
    now = page.evaluate("liteDetr.state")
    assert "tour" in state or now["head"] == "2"
    for key, value in state.items():
        assert now[key].startswith(value)
    assert current(page)[0].id == page.evaluate("liteDetr.info.run")


def test_a_photo_sent_without_a_server_arrives(page, offline, tmp_path):
    scene(140, 100).save(tmp_path / "photo.png")
    offline(True)
    page.set_input_files('[data-part="file"]', str(tmp_path / "photo.png"))
    wait_away(page)
    offline(False)
    page.wait_for_function(f"{QUIET} && liteDetr.info.name === 'photo.png'")
    assert current(page)[0].size == (100, 140)


def test_a_file_asked_for_without_a_server_comes(page, offline, tmp_path):
    offline(True)
    with page.expect_download() as waiting:
        page.locator('[data-part="png"]').click()
        wait_away(page)
        offline(False)
    waiting.value.save_as(tmp_path / "cat.png")
    width, height = Image.open(tmp_path / "cat.png").size
    photo_height, photo_width = current(page)[0].size
    assert (width, height) == (1200, round(1200 * photo_height / photo_width))  # a slide's width at least
    assert waiting.value.suggested_filename == "cat-lite-detr.png"
