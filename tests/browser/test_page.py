"""The page in a real browser. Everything it draws is compared in numbers with the run it came from."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from app.engine.engine import EXAMPLE_NAMES, EXAMPLES
from tests.browser.driver import assert_drawn, click, current, drawn, open_page, place, send, settle
from tests.pictures import scene


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "my photo.png"
    scene(330, 210).save(path)
    return path


def test_the_page_opens_with_a_result(page, url):
    open_page(page, url)
    run, _ = current(page)
    assert run.example == EXAMPLE_NAMES[0]
    rows = page.locator('[data-part="rows"] tr')
    assert rows.count() == len(run.detections)
    assert page.evaluate("document.querySelectorAll('.ld-plot .scatterlayer .trace').length") == len(run.detections)
    stops = page.locator(".ld-stop").evaluate_all("nodes => nodes.map(node => node.dataset.stop)")
    assert stops == ["backbone", *run.step_names, "boxes"]
    spent = page.locator('[data-part="spent"]').inner_text()
    assert f"{run.cost.total:.2f}" in spent
    assert f"{run.cost.tokens[0]:,}" in spent
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_upload_then_click_then_the_points_move(page, url, photo):
    open_page(page, url, "t=1")
    send(page, photo)
    run, _ = current(page)
    assert run.size == (210, 330)
    assert page.evaluate("liteDetr.state.example ?? null") is None
    seen = []
    for x, y in ((0.25, 0.3), (0.75, 0.7)):
        click(page, x, y)
        run, state = current(page)
        assert state.point == pytest.approx((x, y), abs=0.01)
        assert_drawn(page)
        seen.append(drawn(page)["S4"].mean(axis=0))
    assert np.linalg.norm(seen[0] - seen[1]) > 50
    assert page.locator('[data-part="rebuilt"].good').count() == 1
    assert float(page.locator("[data-error]").get_attribute("data-error")) < 1e-5
    assert page.evaluate("document.querySelector('.ld-shares > .ld-chart').data.length") == 4
    assert page.locator(".ld-shares .annotation-text").first.text_content().split() == ["Σ", "1.000"]
    assert "my" not in page.url  # nothing of a visitor's own photo is in the link
    assert "at=" not in page.url


def test_a_click_on_a_detection_picks_it_and_the_table_too(page, url):
    open_page(page, url)
    run, _ = current(page)
    x1, y1, x2, y2 = run.detections.boxes[0].tolist()
    click(page, (x1 + x2) / 2 / run.size[1], (y1 + y2) / 2 / run.size[0])
    _, state = current(page)
    assert state.query is not None
    assert_drawn(page)
    row = page.locator('[data-part="rows"] tr').nth(5)
    row.click()
    settle(page)
    assert current(page)[1].query == run.detections.queries[5]
    assert row.get_attribute("aria-current") == "true"
    assert_drawn(page)


def test_a_box_says_its_class_and_score_on_hover(page, url):
    open_page(page, url)
    run, _ = current(page)
    boxes = run.detections.boxes
    smallest = int(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmin())
    x, y = ((boxes[smallest, :2] + boxes[smallest, 2:]) / 2 / np.array(run.size[::-1])).tolist()
    inside = (boxes[:, :2] <= np.array([x, y]) * run.size[::-1]) & (np.array([x, y]) * run.size[::-1] <= boxes[:, 2:])
    here = {f"{run.detections.names[i]} {run.detections.scores[i]:.2f}" for i in np.flatnonzero(inside.all(axis=1))}
    across, down = place(page, x, y)
    page.mouse.move(across - 3, down)
    page.mouse.move(across, down, steps=3)
    text = page.locator(".hoverlayer .hovertext").first.text_content()
    assert " ".join(text.split()) in here


def test_the_threshold_needs_no_new_run(page, url):
    open_page(page, url)
    run, _ = current(page)
    best = run.detections.scores[:12]
    gap = int(np.argmax(best[:-1] - best[1:]))  # far from every score: the link's three digits change no count
    for threshold in (float(np.round(best[gap : gap + 2].mean(), 3)), 1.0):
        page.evaluate("([t]) => liteDetr.change({ t: String(t) })", [threshold])
        settle(page)
        expected = int((run.detections.scores >= threshold).sum())
        assert page.locator('[data-part="rows"] tr').count() == expected
        assert page.evaluate("document.querySelectorAll('.ld-plot .scatterlayer .trace').length") == expected
    assert current(page)[0] is run
    assert page.locator('[data-part="empty"]').is_visible()
    slider = page.locator('[data-part="threshold"]')
    slider.focus()
    slider.press("Home")
    settle(page)
    assert page.locator('[data-part="rows"] tr').count() == len(run.detections)


def test_steps_heads_and_scales(page, url):
    open_page(page, url, "t=1&example=cat")
    click(page, 0.5, 0.5)
    for step in ("B1 high", "B2 all", "decoder 2"):
        page.locator(f'.ld-stop[data-stop="{step}"]').click()
        settle(page)
        assert current(page)[1].step == step
        assert_drawn(page)
    page.locator('.ld-stop[data-stop="B1 high"]').click()
    page.locator('[data-part="query-scale"] button[data-value="S4"]').click()
    settle(page)
    assert "S4 waits" in page.locator(".ld-note").inner_text()
    page.locator('[data-part="heads"] button[data-value="3"]').click()
    page.locator('[data-part="scales"] button[data-value="S1"]').click()
    settle(page)
    state = current(page)[1]
    assert (state.head, state.hidden) == (3, ("S1",))
    assert {scale: len(rows) for scale, rows in drawn(page).items()} == {"S2": 4, "S3": 4, "S4": 4}
    assert_drawn(page)
    page.locator('.ld-stop[data-stop="boxes"]').click()
    settle(page)
    assert current(page)[1].view == "detections"


def test_the_keyboard_picks_steps_and_goes_back(page, url):
    open_page(page, url, "t=1&example=cat&at=0.5,0.5&view=points&scale=S2&step=B1+all")
    assert_drawn(page)
    page.locator('[data-part="plot"]').focus()
    before = drawn(page)["S4"].mean(axis=0)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    settle(page)
    run, state = current(page)
    width = run.trace.spatial_shapes[2][1]
    assert state.point[0] == pytest.approx(0.5 + 3 / width, abs=0.7 / width)
    assert_drawn(page)
    assert drawn(page)["S4"].mean(axis=0)[0] > before[0]
    page.keyboard.press("]")
    settle(page)
    assert current(page)[1].step == "B2 high"
    page.keyboard.press("Escape")
    settle(page)
    assert current(page)[1].view == "detections"


def test_zoom_stays_while_points_change(page, url):
    open_page(page, url, "t=1")
    click(page, 0.4, 0.4)
    page.locator('[data-zoom="in"]').click()
    page.locator('[data-zoom="in"]').click()
    ranges = "[...liteDetr.plot.node._fullLayout.xaxis.range, ...liteDetr.plot.node._fullLayout.yaxis.range]"
    before = page.evaluate(ranges)
    click(page, 0.55, 0.5)
    np.testing.assert_allclose(page.evaluate(ranges), before)
    assert current(page)[1].point == pytest.approx((0.55, 0.5), abs=0.01)
    x, y = place(page, 0.5, 0.5)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=4)
    page.mouse.up()
    settle(page)
    assert current(page)[1].point == pytest.approx((0.55, 0.5), abs=0.01)  # a drag pans and picks nothing
    assert page.evaluate(ranges)[0] < before[0]
    page.locator('[data-zoom="reset"]').click()
    assert page.evaluate(ranges)[0] < 0


def test_points_outside_the_photo_are_drawn_there(page, url):
    open_page(page, url, "t=1&view=points&at=0,0&scale=S1&step=B1+all&example=cat")
    every = np.concatenate(list(drawn(page).values()))
    assert every.min() < 0
    button = page.locator('[data-part="all-points"]')
    assert button.is_visible()
    button.click()
    assert page.evaluate("liteDetr.plot.node._fullLayout.xaxis.range[0]") < every[:, 0].min()
    assert "outside the photo" in page.locator('[data-part="outside"]').inner_text()


def test_a_bad_picture_is_a_sentence_and_the_page_lives_on(page, url, photo, tmp_path):
    open_page(page, url)
    bad = tmp_path / "broken.png"
    bad.write_bytes(photo.read_bytes()[:300])
    send(page, bad)
    assert "broken" in page.locator('[role="alert"]').inner_text()
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    send(page, text)
    assert "not a picture" in page.locator('[role="alert"]').inner_text()
    send(page, photo)
    assert page.locator('[role="alert"]').is_hidden()
    assert current(page)[0].size == (210, 330)


def test_dropped_pasted_and_taken_photos(page, url, photo):
    open_page(page, url)
    content = base64.b64encode(photo.read_bytes()).decode()
    give = """([content, kind]) => {
        const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], kind + '.png', { type: 'image/png' }));
        const event = kind === 'drop' ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
          : new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
        document.querySelector('[data-part="plot"]').dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [content, kind])
        page.wait_for_function("name => liteDetr.info.name === name", arg=f"{kind}.png")
        assert current(page)[0].size == (210, 330)
    page.locator('[data-part="webcam"]').click()
    page.wait_for_function("document.querySelector('video').videoWidth > 0")
    page.locator('[data-part="take"]').click()
    page.wait_for_function("liteDetr.info.name === 'webcam.jpg'")
    assert page.locator("[data-part=camera]").is_hidden()


def test_downloads(page, url, tmp_path):
    open_page(page, url)
    run, _ = current(page)
    files = {}
    for kind in ("json", "png"):
        with page.expect_download() as waiting:
            page.locator(f'a[data-part="{kind}"]').click()
        files[kind] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(files[kind])
    assert files["json"].name == f"{EXAMPLE_NAMES[0]}-lite-detr.json"
    assert len(json.loads(files["json"].read_text(encoding="utf-8"))["annotations"]) == len(run.detections)
    width, height = Image.open(files["png"]).size
    assert max(width, height) == 1200  # a small photo is enlarged, so that its labels can be read
    assert width / height == pytest.approx(np.divide(*Image.open(EXAMPLES / f"{EXAMPLE_NAMES[0]}.jpg").size), abs=0.01)


def test_a_link_opens_in_its_state(page, url):
    open_page(page, url, "example=cat&view=points&at=0.3,0.6&scale=S3&step=B2+high&head=2&hide=S1&t=0.9", load=True)
    run, state = current(page)
    assert run.example == "cat"
    assert (state.point, state.scale, state.step, state.head, state.hidden) == ((0.3, 0.6), "S3", "B2 high", 2, ("S1",))
    assert_drawn(page)
    click(page, 0.6, 0.6)
    assert re.search(r"at=0\.[56]\d", page.url)
    open_page(page, url, "view=%3Cb%3E&q=-1&at=x&step=%00&head=99999&example=../x", load=True)
    assert current(page)[0].example == EXAMPLE_NAMES[0]


def test_dark_and_korean(page, url):
    open_page(page, url, "t=1")
    click(page, 0.5, 0.5)
    colour = "getComputedStyle(document.querySelector('.ld')).backgroundColor"
    ink = "document.querySelector('.ld-shares .ytick text').style.fill"
    light = page.evaluate(colour), page.evaluate(ink)
    page.locator('[data-part="theme"]').click()
    page.wait_for_function(f"before => {ink} !== before", arg=light[1])
    assert page.evaluate(colour) != light[0]
    page.locator('[data-lang="ko"]').click()
    settle(page)
    assert page.locator('[data-text="upload"]').inner_text() == "올리기"
    assert "토큰" in page.locator('[data-part="query"]').inner_text()
    assert "lang=ko" in page.url
