"""390 pixels wide, by touch."""

import pytest

from tests.browser.conftest import PATIENCE, watched
from tests.browser.driver import assert_drawn, current, open_page, place, settle


@pytest.fixture(scope="module")
def phone(browser, url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    context.set_default_timeout(PATIENCE)
    page = watched(context)
    open_page(page, url, "t=1")
    yield page
    assert page.strangers == []
    assert page.errors == []
    context.close()


def test_nothing_is_wider_than_the_phone(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    sides = phone.evaluate(
        """[...document.querySelectorAll('.ld-card, .ld-stage, .ld-rail, .ld button')]
        .filter(node => node.offsetParent && !node.closest('.ld-track, [role=tablist]'))
        .map(node => node.getBoundingClientRect()).map(box => [box.left, box.right])"""
    )
    assert all(left >= 0 and right <= 390.5 for left, right in sides)


def test_the_stage_comes_first(phone):
    tops = [
        phone.locator(name).bounding_box()["y"]
        for name in (".ld-top", ".ld-stage", ".ld-rail", ".ld-intake", ".ld-found", ".ld-spent")
    ]
    assert tops == sorted(tops)
    stage = phone.locator(".ld-stage").bounding_box()
    assert stage["y"] + stage["height"] < 844


def test_a_tap_shows_where_it_looked(phone):
    phone.touchscreen.tap(*place(phone, 0.3, 0.6))
    phone.wait_for_function("liteDetr.state.view === 'points'")
    settle(phone)
    assert current(phone)[1].point == pytest.approx((0.3, 0.6), abs=0.02)
    assert_drawn(phone)
    assert phone.locator(".ld-of-points").first.is_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_finger_scrolls_the_page_over_the_photo(phone):
    assert phone.evaluate("liteDetr.plot.node._fullLayout.dragmode") is False
    phone.locator('[data-zoom="in"]').tap()
    phone.wait_for_function("liteDetr.plot.node._fullLayout.dragmode === 'pan'")
    phone.locator('[data-zoom="reset"]').tap()
    phone.wait_for_function("liteDetr.plot.node._fullLayout.dragmode === false")


def test_fingers_can_hit_the_buttons(phone):
    heights = phone.locator(".ld-stop, .ld-sources button, .ld-row button").evaluate_all(
        "nodes => nodes.map(node => node.offsetHeight)"
    )
    assert min(heights) >= 36
