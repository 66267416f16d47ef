"""axe-core finds no serious violation, and nothing is wider than a phone, in any view, light and dark."""

from pathlib import Path

import axe_playwright_python
import pytest

from app.views import VIEWS
from tests.browser.conftest import PATIENCE, watched
from tests.browser.driver import open_page, settle

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
SERIOUS = """async (rules) => {
    const context = { include: ['.ld'], exclude: ['.ld-plot svg', '.ld-chart svg', '.ld-shares svg'] };
    const found = await axe.run(context, { resultTypes: ['violations'], ...rules });
    return found.violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
      .map(({ id, nodes }) => [id, nodes.slice(0, 3).map(({ html }) => html.slice(0, 160))]);
}"""


def test_axe_finds_nothing_serious(page, url):
    open_page(page, url, "t=0&example=cat&box=0.2,0.2,0.6,0.7", load=True)
    page.add_script_tag(path=AXE)
    page.emulate_media(reduced_motion="reduce")  # colours change at once, not in a fade of which axe sees the middle
    found = {}
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        rules = {"runOnly": ["color-contrast"]} if dark else {}  # the rest is the same in the dark
        for name in VIEWS:
            page.evaluate("view => liteDetr.change({ view })", name)
            settle(page)
            found[name, dark] = page.evaluate(SERIOUS, rules)
    page.evaluate("document.body.classList.remove('dark')")
    page.emulate_media(reduced_motion="no-preference")
    assert {key: value for key, value in found.items() if value} == {}


def test_axe_finds_nothing_serious_in_the_dialogs(page, url):
    open_page(page, url, "t=0&example=cat")
    if not page.evaluate("!!window.axe"):
        page.add_script_tag(path=AXE)
    for button, close in (("take-away", "take-close"), ("model-button", "models-close")):
        page.locator(f'[data-part="{button}"]').click()
        assert page.evaluate(SERIOUS, {}) == []
        page.locator(f'[data-part="{close}"]').click()


@pytest.fixture(scope="module")
def phone(browser, url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    context.set_default_timeout(PATIENCE)
    page = watched(context)
    open_page(page, url, "t=0&example=cat&box=0.2,0.2,0.6,0.7")
    yield page
    assert page.errors == []
    context.close()


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_no_view_is_wider_than_a_phone(phone, lang):
    wide = {}
    for name in VIEWS:
        phone.evaluate("([view, lang]) => liteDetr.change({ view, lang })", [name, lang])
        settle(phone)
        width = phone.evaluate("document.documentElement.scrollWidth")
        beyond = phone.evaluate(
            """[...document.querySelectorAll('.ld-card, .ld-card *, .ld-stage, .ld-stage-top *')]
            .filter((node) => node.offsetParent && !node.closest('.ld-view-table, svg, .ld-table-box'))
            .filter((node) => node.getBoundingClientRect().right > 390.5).map((node) => node.className).slice(0, 3)"""
        )
        selected = phone.evaluate("document.querySelector('[role=tab][aria-selected=true]').getBoundingClientRect().toJSON()")
        if width > 390 or beyond or selected["left"] < 0 or selected["right"] > 390:
            wide[name] = (width, beyond, selected)
    assert wide == {}
