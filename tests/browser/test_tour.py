"""The lesson: stops open real views; a reader may wander off, come back, leave and re-enter."""

from urllib.parse import parse_qsl

from app.lessons import lesson
from app.run.state import ViewState
from tests.browser.driver import assert_drawn, current, open_page, send, serious, settle, themes, too_wide
from tests.pictures import scene

STOPS = [ViewState.from_query(stop["link"]) for stop in lesson("en")]


def wait(page, stop):
    page.wait_for_function(f"liteDetr.state.tour === '{stop}' && document.querySelector('.ld').dataset.busy === 'no'")
    settle(page)


def at(page, stop):
    """The page is where the stop says, and says so."""
    _, state = current(page)
    assert state == STOPS[stop - 1].with_(tour=stop)
    assert dict(parse_qsl(page.evaluate("location.search.slice(1)")))["tour"] == str(stop)
    assert page.locator('[data-part="tour-title"]').inner_text() == lesson("en")[stop - 1]["title"]
    assert page.locator('[data-part="tour-moved"]').is_hidden()
    assert page.locator(f'[data-view="{state.view}"][role="tab"]').get_attribute("aria-selected") == "true"


def test_a_walk_with_the_keyboard(page, url):
    open_page(page, url, "example=cat&view=points")
    page.evaluate("localStorage.clear()")  # nobody was in the lesson before
    panel, button = page.locator('[data-part="tour"]'), page.locator('[data-part="tour-button"]')
    assert panel.is_hidden()
    button.press("Enter")
    wait(page, 1)
    at(page, 1)
    assert page.evaluate("document.activeElement.dataset.part") == "tour-title"
    page.locator('[data-part="tour-next"]').press("Enter")
    wait(page, 2)
    at(page, 2)
    page.locator('[data-control="plan"] input').first.press("ArrowLeft")  # the reader's own schedule: the lesson waits
    page.wait_for_function("liteDetr.state.plan.startsWith('H2L2')")
    settle(page)
    assert page.locator('[data-part="tour-moved"]').is_visible()
    page.locator('[data-part="tour-again"]').press("Enter")
    wait(page, 2)
    at(page, 2)
    page.locator('[data-part="tour-leave"]').press("Enter")
    settle(page)
    assert panel.is_hidden()
    assert current(page)[1] == STOPS[1]  # leaving moves nothing
    assert page.evaluate("document.activeElement.dataset.part") == "tour-button"
    assert "tour" not in page.evaluate("location.search")
    page.evaluate("liteDetr.change({ view: 'leak' })")
    settle(page)
    button.press("Enter")
    wait(page, 2)
    at(page, 2)  # where it was left


def test_axe_finds_nothing_serious_in_the_tour(page, url):
    open_page(page, url, "tour=6&example=astronaut&view=attended&n=50&lang=ko", load=True)
    page.locator('[data-part="tour"] [data-text="tour.all"]').click()
    assert page.locator('[data-part="tour-moved"]').is_visible()  # n is the reader's: a full link keeps it
    assert {theme: serious(page, ".ld-tour", ".ld-top") for theme in themes(page)} == {"light": [], "dark": []}


def test_a_readers_own_photo_is_one_press_away(page, url, tmp_path):
    open_page(page, url, "example=cat")
    page.evaluate("localStorage.clear()")
    path = tmp_path / "mine.png"
    scene(220, 160).save(path)
    send(page, path)
    page.evaluate("liteDetr.change({ view: 'points', at: '0.3000,0.6000', step: 'B2 all' })")
    settle(page)
    mine, before = current(page)
    back = page.locator('[data-part="tour-own"]')
    page.locator('[data-part="tour-button"]').click()
    wait(page, 1)
    at(page, 1)
    assert back.is_visible()
    back.press("Enter")
    page.wait_for_function("run => liteDetr.info.run === run && liteDetr.root.dataset.busy === 'no'", arg=mine.id)
    settle(page)
    run, state = current(page)
    assert run is mine  # nothing was computed again
    assert state == before.with_(tour=1)
    assert_drawn(page)
    assert back.is_hidden()
    page.locator('[data-part="tour-leave"]').click()
    page.locator('[data-example="coffee"]').click()
    page.wait_for_function("liteDetr.info.name === 'coffee' && liteDetr.root.dataset.busy === 'no'")
    page.locator('[data-part="own"]').click()
    page.wait_for_function("run => liteDetr.info.run === run", arg=mine.id)


def test_a_link_that_names_a_stop_opens_it_on_a_phone(phone, url):
    open_page(phone, url, "tour=5&lang=ko", load=True)
    wait(phone, 5)
    assert current(phone)[1] == STOPS[4].with_(tour=5, lang="ko")
    assert phone.locator('[data-part="tour-title"]').inner_text() == lesson("ko")[4]["title"]
    phone.locator('[data-part="tour"] [data-text="tour.all"]').tap()
    assert too_wide(phone, ".ld-top *", ".ld-tour", ".ld-tour *") == []
    phone.locator('[data-part="tour-stops"] a').nth(6).tap()
    wait(phone, 7)
    assert current(phone)[1] == STOPS[6].with_(tour=7, lang="ko")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


RAIL, COMPUTE, THRESHOLD = ".ld-rail .ld-stop", '[data-part="compute"]', '[data-part="threshold"]'
PLAN, HEADS, MUTE = '[data-control="plan"] input', '[data-control="head"] button', '[data-control="mute"] select'
NAMED = (
    (RAIL,), (PLAN, COMPUTE), (".ld-play", ".ld-plot"), (RAIL,),
    ('[data-part="heads"] button', '[data-part="scales"] button', '[data-control="heat"] button', ".ld-plot"),
    ('[data-control="n"] input',), (HEADS,), ('[data-control="scale"] button', HEADS, RAIL), (".ld-plot", RAIL), (COMPUTE, MUTE),
    (COMPUTE, THRESHOLD), ('[data-control="cls"] select', THRESHOLD, '[data-part="box-mode"]', ".ld-plot"),
)  # fmt: skip
"""What each stop asks its reader to use."""
UNSEEN = """([names, scrolls]) => names.filter((name) => {
    const nodes = [...document.querySelectorAll(name)].filter((node) => node.offsetParent);
    if (scrolls) nodes[0]?.scrollIntoView({ block: 'nearest' });
    const seen = (node) => {
        const { left, top, width, height } = node.getBoundingClientRect();
        const hit = document.elementFromPoint(left + width / 2, top + height / 2);
        return width > 0 && hit !== null && (node.contains(hit) || hit.contains(node));
    };
    return !nodes.length || !(scrolls ? seen(nodes[0]) : nodes.every(seen));
})"""
"""Which of some controls cannot be hit where they stand; on a phone, where they stand once the page is scrolled to them."""


def test_what_a_stop_asks_for_is_in_sight(page, phone, url):
    """On a projector without scrolling, on a phone not under the buttons that stay there; in both languages."""
    page.set_viewport_size({"width": 1280, "height": 720})
    missing = {}
    for screen, lang, scrolls in ((page, "en", False), (page, "ko", False), (phone, "ko", True), (phone, "en", True)):
        open_page(screen, url, f"example=astronaut&lang={lang}")
        for stop, named in enumerate(NAMED, start=1):
            screen.evaluate("stop => liteDetr.tour.go(stop)", stop)
            wait(screen, stop)
            turn = (".ld-turn button", '[data-part="tour-title"]') if not scrolls else (".ld-turn button",)
            if unseen := screen.evaluate(UNSEEN, [[*named, *turn], scrolls]):
                missing[screen.viewport_size["width"], lang, stop] = unseen
    screen.evaluate("liteDetr.tour.leave()")
    page.evaluate("liteDetr.tour.leave()")
    assert missing == {}
