"""Everybody can use it: axe-core finds no serious violation, nothing is wider than a phone, the keyboard reaches all of it."""

import pytest

from app.views import VIEWS
from tests.browser.driver import current, open_page, serious, settle, themes, too_wide

QUERY = "t=0&example=cat&box=0.2,0.2,0.6,0.7"
CHANGES = (".ld-views", ".ld-stage", ".ld-inspector", ".ld-rail")
"""Parts of the page that differ from view to view."""


def test_axe_finds_nothing_serious(page, url):
    open_page(page, url, QUERY)
    found = {}
    for theme in themes(page):
        found["page", theme] = serious(page)
        for name in VIEWS:
            page.evaluate("view => liteDetr.change({ view })", name)
            settle(page)
            found[name, theme] = serious(page, *CHANGES)
    assert {key: value for key, value in found.items() if value} == {}


def test_axe_finds_nothing_serious_in_the_dialogs(page, url):
    open_page(page, url, QUERY)
    for button, dialog, close in (("take-away", ".ld-take", "take-close"), ("model-button", ".ld-models", "models-close")):
        page.locator(f'[data-part="{button}"]').click()
        assert serious(page, dialog) == []
        page.locator(f'[data-part="{close}"]').click()


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_no_view_is_wider_than_a_phone(phone, url, lang):
    open_page(phone, url, f"{QUERY}&lang={lang}")
    wide = {}
    for name in VIEWS:
        phone.evaluate("view => liteDetr.change({ view })", name)
        settle(phone)
        beyond = too_wide(phone, ".ld-card", ".ld-card *", ".ld-stage", ".ld-stage-top *")
        selected = phone.evaluate("document.querySelector('[role=tab][aria-selected=true]').getBoundingClientRect().toJSON()")
        if beyond or selected["left"] < 0 or selected["right"] > 390:
            wide[name] = (beyond, selected)
    assert wide == {}


FOCUSED = """() => {
    const node = document.activeElement, style = getComputedStyle(node), box = node.getBoundingClientRect();
    return { tab: node.dataset.view, part: node.dataset.part, outline: style.outlineStyle, width: parseFloat(style.outlineWidth),
             seen: box.width > 0 && box.right > 0 && box.left < innerWidth };
}"""


def test_the_keyboard_alone_walks_through_every_view(page, url):
    open_page(page, url, QUERY)
    page.locator('[role="tab"][aria-selected="true"]').focus()
    for number, name in enumerate(VIEWS):
        page.keyboard.press("ArrowRight" if number else "Home")
        settle(page)
        focused = page.evaluate(FOCUSED)
        assert (focused["tab"], current(page)[1].view) == (name, name)
        assert focused["seen"]
        assert (focused["outline"], focused["width"] >= 2) == ("solid", True)
    page.keyboard.press("ArrowRight")  # round to the first
    settle(page)
    assert current(page)[1].view == next(iter(VIEWS))


@pytest.mark.parametrize("name", VIEWS)
def test_the_keyboard_reaches_what_a_view_offers_and_shows_where_it_is(page, url, name):
    """From the tab on, Tab leads through the stage, everything in the inspector and the rail, each with a visible frame."""
    open_page(page, url, f"{QUERY}&view={name}")
    wanted = page.evaluate(
        """() => {
        const nodes = [...document.querySelectorAll('.ld-stage, .ld-inspector, .ld-rail')]
          .flatMap((box) => [...box.querySelectorAll('button, input, select, summary, a[href], [tabindex="0"]')])
          .filter((node) => node.offsetParent && !node.disabled);
        document.querySelectorAll('[data-walk]').forEach((node) => delete node.dataset.walk);
        nodes.forEach((node, index) => { node.dataset.walk = index; });
        return nodes.length;
    }"""
    )
    page.locator('[role="tab"][aria-selected="true"]').focus()
    reached, hidden = set(), []
    for _ in range(400):
        page.keyboard.press("Tab")
        walk, outside, frame, html = page.evaluate(
            """() => {
            const node = document.activeElement, style = getComputedStyle(node);
            const frame = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
            return [node.dataset.walk, !node.closest('.ld'), frame, node.outerHTML.slice(0, 100)];
        }"""
        )
        if walk is not None:
            reached.add(walk)
            if not frame:
                hidden.append(html)
        if outside or len(reached) == wanted:
            break
    assert hidden == []
    assert len(reached) == wanted
