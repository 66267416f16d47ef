"""Back, Forward, a reload, play, several photos at once: what was looked at is never lost."""

import json

from tests.browser.driver import current, open_page, send, settle
from tests.pictures import scene


def turn(page, way):
    page.evaluate(f"history.{way}()")
    page.wait_for_timeout(50)
    settle(page)
    return current(page)[1]


def test_back_and_forward_are_views_queries_and_photos_but_not_sliders(page, url):
    open_page(page, url, "example=cat&t=0.1", load=True)
    page.evaluate("liteDetr.change({ view: 'points', q: '3' })")
    settle(page)
    for threshold in ("0.2", "0.3"):
        page.evaluate("t => liteDetr.change({ t })", threshold)
        settle(page)
    page.evaluate("liteDetr.change({ view: 'film' })")
    settle(page)
    page.locator('[data-example="coffee"]').click()
    page.wait_for_function("liteDetr.info.name === 'coffee' && liteDetr.root.dataset.busy === 'no'")
    settle(page)
    page.evaluate("history.back()")
    page.wait_for_function("liteDetr.info.name === 'cat' && liteDetr.root.dataset.busy === 'no'")
    settle(page)
    assert current(page)[1].view == "film"
    before = turn(page, "back")
    assert (before.view, before.query, before.threshold) == ("points", 3, 0.3)
    assert turn(page, "back").view == "detections"
    assert turn(page, "forward").query == 3


def test_a_reload_keeps_a_photo_that_no_link_holds(page, url, tmp_path):
    open_page(page, url, "example=cat", load=True)
    scene(220, 160).save(tmp_path / "mine.png")
    send(page, tmp_path / "mine.png")
    page.evaluate("liteDetr.change({ view: 'points', at: '0.3000,0.6000' })")
    settle(page)
    mine, before = current(page)
    page.evaluate("liteDetr.root.querySelector('[data-part=theme]').click()")
    page.goto(page.url.replace("__theme=light&", "").replace("__theme=light", ""))
    page.wait_for_function("window.liteDetr?.info && document.querySelector('.ld').dataset.busy === 'no'")
    run, state = current(page)
    assert (run.id, state) == (mine.id, before)
    assert page.evaluate("document.body.classList.contains('dark')")
    page.evaluate("localStorage.clear(); sessionStorage.clear()")


def test_the_film_ends_with_the_boxes(page, url):
    open_page(page, url, "example=cat&view=film&step=decoder+3")
    for _ in range(3):
        page.locator(".ld-plot").press("]")
        settle(page)
    assert current(page)[1].to_query() == {"view": "film", "step": "boxes", "example": "cat"}
    assert page.locator('[data-stop="boxes"]').get_attribute("aria-current") == "step"


def test_several_photos_are_a_strip_and_one_file(page, url, tmp_path):
    open_page(page, url, "example=cat&t=0", load=True)
    for number in range(2):
        scene(160 + 40 * number, 160).save(tmp_path / f"photo {number}.png")
    page.locator('[data-part="file"]').set_input_files([tmp_path / f"photo {number}.png" for number in range(2)])
    page.wait_for_function(
        "liteDetr.strip.entries.length === 2 && liteDetr.strip.entries.every(({ run }) => run) && !liteDetr.strip.filling"
    )
    page.wait_for_function("liteDetr.info.run === liteDetr.strip.entries[0].run && liteDetr.root.dataset.busy === 'no'")
    with page.expect_download() as downloaded:
        page.locator('[data-part="strip-coco"]').click()
    whole = json.loads(downloaded.value.path().read_text(encoding="utf-8"))
    assert [(image["id"], image["width"]) for image in whole["images"]] == [(1, 160), (2, 200)]
    assert {each["image_id"] for each in whole["annotations"]} == {1, 2}
    assert [each["id"] for each in whole["annotations"]] == list(range(1, len(whole["annotations"]) + 1))
    page.evaluate("sessionStorage.clear()")
