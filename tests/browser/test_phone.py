"""390 pixels wide, by touch."""

import pytest

from tests.browser.driver import assert_drawn, current, open_page, place, settle, too_wide


@pytest.fixture(autouse=True)
def opened(phone, url):
    open_page(phone, url, "t=1")


def test_nothing_is_wider_than_the_phone(phone):
    assert too_wide(phone, ".ld-card", ".ld-stage", ".ld-rail", ".ld button") == []
    lefts = phone.locator(".ld-card, .ld-stage, .ld-rail").evaluate_all(
        "nodes => nodes.map((node) => node.getBoundingClientRect().left)"
    )
    assert min(lefts) >= 0


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
    assert phone.locator("[data-card=query]").first.is_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_finger_scrolls_the_page_over_the_photo(phone):
    assert phone.evaluate("liteDetr.plot.node._fullLayout.dragmode") is False
    phone.locator('[data-zoom="in"]').tap()
    phone.wait_for_function("liteDetr.plot.node._fullLayout.dragmode === 'pan'")
    phone.locator('[data-zoom="reset"]').tap()
    phone.wait_for_function("liteDetr.plot.node._fullLayout.dragmode === false")


def test_fingers_can_hit_the_buttons(phone, url):
    open_page(phone, url, "t=1&view=points")
    small = phone.evaluate(
        """[...document.querySelectorAll('.ld button, .ld input, .ld select, .ld summary')]
          .filter((node) => node.offsetParent && node.offsetHeight < 40 && !node.matches('.ld-term, .ld-switch'))
          .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert small == []  # explained words stand in a text, and a switch takes presses above and below it


def test_on_its_side_the_whole_stage_is_in_sight(phone, url):
    domains = """() => ['xaxis', 'yaxis'].map((axis) =>
        new Set(liteDetr.plot.panels.map((panel) => liteDetr.plot.node.layout[axis + panel.x.slice(1)].domain[0])).size)"""
    open_page(phone, url, "t=1&view=film&step=B1+high")
    assert phone.evaluate(domains) == [2, 2]  # columns and rows of scales
    phone.set_viewport_size({"width": 844, "height": 390})
    try:
        phone.wait_for_function(f"String(({domains})()) === '4,1'")
        stage = phone.locator(".ld-stage").bounding_box()
        assert stage["y"] + stage["height"] <= 390
        assert too_wide(phone, ".ld-card", ".ld-stage", ".ld-rail") == []
    finally:
        phone.set_viewport_size({"width": 390, "height": 844})
