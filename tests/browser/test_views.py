"""Every view in a real browser: what is drawn is what the view says, and clicks and keys are right in numbers."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from app.run.choice import choose
from app.views import VIEWS
from tests.browser.driver import assert_shown, click, current, open_page, place, settle

NAMES = list(VIEWS)


@pytest.mark.parametrize("name", NAMES)
def test_a_tab_shows_its_view_and_a_click_is_right(page, url, name):
    open_page(page, url, "t=0&example=cat")
    page.locator(f'[role="tab"][data-view="{name}"]').click()
    settle(page)
    run, before, _ = assert_shown(page)
    assert before.view == name
    if not page.evaluate("liteDetr.plot.panels.length") or page.evaluate("liteDetr.plot.boxing"):
        return
    marks = page.evaluate("liteDetr.plot.hasSettings()")
    click(page, 0.31, 0.62)
    if marks:  # one may have been hit, and Plotly is given time to say so
        page.wait_for_timeout(120)
        settle(page)
    run, after, _ = assert_shown(page)
    if marks:
        return
    assert (after.query, after.point) != (before.query, before.point)
    if after.point is not None:
        assert after.point == pytest.approx((0.31, 0.62), abs=0.02)
    else:
        assert after.query in run.detections.queries


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("detections", "schedule", "versus")])
def test_the_rail_and_the_table_lead_on_within_a_view(page, url, name):
    open_page(page, url, f"t=0&example=cat&view={name}")
    page.locator('.ld-stop[data-stop="B2 all"]').click()
    settle(page)
    _, state, summary = assert_shown(page)
    assert state.view == name
    assert state.step == "B2 all"
    rows = (summary.get("table") or {"rows": []})["rows"]
    choices = [index for index, row in enumerate(rows) if row.get("set")]
    if choices:
        page.locator('[data-part="view-table"] tbody tr').nth(choices[-1]).locator("button").press("Enter")
        settle(page)
        _, state, _ = assert_shown(page)
        query = state.to_query()
        wanted = {key: value for key, value in rows[choices[-1]]["set"].items() if value not in ("", None, "auto")}
        assert {key: query.get(key) for key in wanted} == {key: str(value) for key, value in wanted.items()}


def test_class_chips_filter_the_figure_and_the_table(page, url):
    open_page(page, url)
    run, _ = current(page)
    label = int(run.detections.labels[-1])
    expected = int((run.detections.labels == label).sum())
    chip = page.locator(f'.ld-class[data-class="{label}"]')
    assert chip.locator("b").inner_text() == str(expected)
    chip.click()
    settle(page)
    assert current(page)[1].classes == (label,)
    assert page.locator('[data-part="rows"] tr').count() == expected
    assert page.evaluate("document.querySelectorAll('.ld-plot .scatterlayer .trace').length") == expected
    assert chip.get_attribute("aria-pressed") == "true"
    page.locator('.ld-class[data-class="all"]').click()
    settle(page)
    assert page.locator('[data-part="rows"] tr').count() == len(run.detections)


def test_table_and_figure_are_linked_both_ways(page, url):
    open_page(page, url)
    run, _ = current(page)
    page.locator('[data-part="rows"] tr').nth(4).hover()
    frame = page.locator('[data-part="frame"]')
    box = frame.bounding_box()
    x1, y1, x2, y2 = (float(value) for value in run.detections.boxes[4])
    height, width = run.size
    left, top = place(page, x1 / width, y1 / height)
    right, bottom = place(page, x2 / width, y2 / height)
    assert (box["x"], box["y"]) == (pytest.approx(left, abs=2), pytest.approx(top, abs=2))
    assert (box["width"], box["height"]) == (pytest.approx(right - left, abs=2), pytest.approx(bottom - top, abs=2))
    areas = np.prod(run.detections.boxes[:, 2:] - run.detections.boxes[:, :2], axis=1)
    smallest = int(areas.argmin())
    x, y = ((run.detections.boxes[smallest, :2] + run.detections.boxes[smallest, 2:]) / 2 / [width, height]).tolist()
    across, down = place(page, x, y)
    page.mouse.move(across - 3, down)
    page.mouse.move(across, down, steps=3)
    assert frame.is_hidden()
    lit = page.locator('[data-part="rows"] tr.hover')
    lit.wait_for()
    index = int(lit.get_attribute("data-index"))
    x1, y1, x2, y2 = run.detections.boxes[index]
    assert x1 <= x * width <= x2
    assert y1 <= y * height <= y2


def test_footprints(page, url):
    open_page(page, url, "t=1&view=points&at=0.4,0.5&step=B3+all&example=cat")
    page.locator('[data-control="heat"] button').click()
    settle(page)
    run, state, _ = assert_shown(page)
    assert state.heat
    grid = page.evaluate("liteDetr.plot.node.data.find(({ type }) => type === 'heatmap').z.map((row) => [...row])")
    total = np.sum(grid)
    assert total / 100 == pytest.approx(1 - outside(choose(run, state)), abs=1e-4)
    assert "heat=1" in page.url


def outside(chosen):
    """Attention on cells that do not exist, as the mean over heads."""
    lost = 0.0
    for level, (height, width) in enumerate(chosen.step.spatial_shapes):
        x, y = np.moveaxis(chosen.locations[:, level].astype(float) * [width, height] - 0.5, -1, 0)
        inside = np.clip(np.minimum(x + 1, width - x), 0, 1) * np.clip(np.minimum(y + 1, height - y), 0, 1)
        lost += float((chosen.weights[:, level] * (1 - inside)).sum())
    return lost / len(chosen.weights)


def test_panels_zoom_as_one_and_take_clicks(page, url):
    open_page(page, url, "t=0&example=cat&view=attended")
    assert page.evaluate("liteDetr.plot.panels.length") == 2
    ranges = "['xaxis', 'xaxis2', 'yaxis', 'yaxis2'].map((axis) => [...liteDetr.plot.node._fullLayout[axis].range])"
    before = np.array(page.evaluate(ranges))
    page.locator('[data-zoom="in"]').click()
    after = np.array(page.evaluate(ranges))
    np.testing.assert_allclose(after[0], after[1])
    np.testing.assert_allclose(after[2], after[3])
    np.testing.assert_allclose(np.diff(after[0]), 0.7 * np.diff(before[0]), rtol=0.02)
    page.locator('[data-zoom="reset"]').click()
    spot = page.evaluate(
        """() => {
        const { node, size } = liteDetr.plot;
        const box = node.getBoundingClientRect();
        const { xaxis2, yaxis2 } = node._fullLayout;
        return [box.left + xaxis2._offset + xaxis2.d2p(.3 * size.width), box.top + yaxis2._offset + yaxis2.d2p(.6 * size.height)];
    }"""
    )
    assert page.evaluate("spot => liteDetr.plot.locate(...spot)", spot) == pytest.approx([0.3, 0.6], abs=0.01)


def test_a_box_by_drag_by_clicks_and_by_keys(page, url):
    open_page(page, url, "t=0&example=cat&view=missed")
    page.mouse.move(*place(page, 0.2, 0.3))
    page.mouse.down()
    page.mouse.move(*place(page, 0.5, 0.5), steps=3)
    assert page.locator('[data-part="frame"]').is_visible()
    page.mouse.move(*place(page, 0.6, 0.7))
    page.mouse.up()
    settle(page)
    _, state, _ = assert_shown(page)
    assert state.box == pytest.approx((0.2, 0.3, 0.6, 0.7), abs=0.01)
    click(page, 0.8, 0.9)
    click(page, 0.4, 0.5)
    _, state, _ = assert_shown(page)
    assert state.box == pytest.approx((0.4, 0.5, 0.8, 0.9), abs=0.01)
    page.locator('[data-part="plot"]').focus()
    page.keyboard.press("ArrowLeft")
    settle(page)
    page.keyboard.press("Shift+ArrowDown")
    settle(page)
    assert current(page)[1].box == pytest.approx((0.38, 0.5, 0.78, 0.92), abs=0.01)
    page.locator('[data-part="box-mode"]').click()
    assert page.evaluate("liteDetr.plot.node._fullLayout.dragmode") == "pan"


class Piecework:
    """Work in twenty pieces, that waits for a word after the fifth."""

    def __init__(self):
        self.go, self.waits, self.left = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, run, state, detectors, report):
        try:
            for piece in range(20):
                report(piece / 20, f"piece {piece}")
                if piece == 5:
                    self.waits.set()
                    self.go.wait(0.2)
                while piece > 5 and not self.go.is_set():
                    report(piece / 20, f"piece {piece}")
                    time.sleep(0.05)
        except BaseException:
            self.left.set()
            raise
        return np.ones(3)


@pytest.fixture
def piecework(monkeypatch):
    work = Piecework()
    monkeypatch.setitem(VIEWS, "desire", replace(VIEWS["desire"], job=lambda run, state: "piecework", work=work))
    yield work
    work.go.set()


def test_work_shows_how_far_it_is_and_can_be_cancelled(page, url, piecework):
    open_page(page, url, "t=0&example=coffee&view=desire")
    run, _ = current(page)
    page.locator('[data-part="compute"]').click()
    assert piecework.waits.wait(30)
    page.wait_for_function("document.querySelector('[data-part=\"work-text\"]').textContent.startsWith('piece')")
    page.wait_for_function("document.querySelector('[data-part=\"work-share\"]').value >= 0.25")
    page.locator('[data-part="work-cancel"]').click()
    assert piecework.left.wait(30)
    assert "piecework" not in run.extras
    assert page.locator('[data-part="compute"]').is_visible()
    piecework.go.set()
    page.locator('[data-part="compute"]').click()
    page.wait_for_function("document.querySelector('[data-part=\"work\"]').hidden")
    assert run.extras.get("piecework").sum() == 3


def test_another_order_and_a_closed_tab_free_the_model(page, context, url, piecework):
    open_page(page, url, "t=0&example=coffee&view=desire")
    current(page)[0].extras._held.pop("piecework", None)
    page.evaluate("liteDetr.look({})")
    settle(page)
    page.locator('[data-part="compute"]').click()
    assert piecework.waits.wait(30)
    page.locator('[data-example="cat"]').click()
    page.wait_for_function("liteDetr.info.name === 'cat'")  # it did not wait for the work's end
    assert piecework.left.wait(30)
    piecework.left.clear()
    piecework.waits.clear()
    other = context.new_page()
    open_page(other, url, "t=0&example=cat&view=desire")
    other.locator('[data-part="compute"]').click()
    assert piecework.waits.wait(30)
    other.wait_for_function("document.querySelector('[data-part=\"work-text\"]').textContent.startsWith('piece')")  # it reads
    other.close()
    assert piecework.left.wait(60)


def test_a_state_of_any_view_is_its_link(page, url):
    query = "example=cat&view=points&at=0.4000%2C0.5000&step=B3+all&heat=1&head=2&cls=0%2C15&mute=S4%2Ch3&n=400&tour=2"
    open_page(page, url, query, load=True)
    _, state = current(page)
    assert (state.heat, state.head, state.classes, state.mute, state.top, state.tour) == (True, 2, (0, 15), ("S4", "h3"), 400, 2)
    link = page.evaluate("location.search")
    for part in ("heat=1", "cls=0%2C15", "mute=S4%2Ch3", "n=400"):
        assert part in link
    assert json.loads(page.evaluate("JSON.stringify(liteDetr.state)")) == state.to_query()
