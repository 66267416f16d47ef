"""Views that need the model again, in a real browser: what Compute, a slider, a row or a cell does, in numbers."""

import pytest

from app.views import leak, mattered, schedule, versus
from litedetr.cost import gmacs
from tests.browser.driver import current, open_page, settle


def compute(page):
    """Press the button and wait for the result to be drawn."""
    page.locator('[data-part="compute"]').click()
    page.wait_for_function("document.querySelector('[data-part=\"work\"]').hidden")
    settle(page)


def facts(page):
    return page.locator('[data-part="view-facts"] dd').all_inner_texts()


def test_schedule_follows_its_sliders_and_cells_and_is_measured(page, url):
    open_page(page, url, "example=cat&view=schedule")
    run, _ = current(page)
    page.locator('[data-control="plan"] input').nth(0).fill("2")
    settle(page)
    assert page.evaluate("liteDetr.state.plan") == "H2L2-(2+1)x3"
    _, state = current(page)
    cost = gmacs(schedule.with_schedule(run.config, schedule.planned(run, state)), run.trace.geometry.padded)
    assert f"{cost.encoder:.2f} GMACs" in facts(page)
    filled = page.evaluate(
        """liteDetr.plot.node.data.map(({ marker }) => [...marker.color].filter((colour) => colour.startsWith('#')).length)"""
    )
    assert filled == [3, 3, 6, 6]  # the finest scale first: in the last layer of each block alone
    page.locator(".ld-chart").nth(1).scroll_into_view_if_needed()
    cell = page.evaluate(
        """() => {
        const chart = document.querySelectorAll('.ld-chart')[1];
        const node = chart._fullLayout ? chart : chart.querySelector('.js-plotly-plot');
        const box = node.getBoundingClientRect(), { xaxis, yaxis } = node._fullLayout;
        return [box.left + xaxis._offset + xaxis.d2p('A6'), box.top + yaxis._offset + yaxis.d2p('H1')];
    }"""
    )
    page.mouse.move(*cell)
    page.mouse.click(*cell)
    page.wait_for_function("liteDetr.state.plan === 'H1L3-(6+1)x1'")
    settle(page)
    compute(page)
    run, state = current(page)
    times = run.extras.get(schedule.job(run, state))
    assert f"{times['plan']:.1f} ms" in facts(page)
    assert f"{100 * times['plan'] / times['full']:.0f}%" in facts(page)


def test_versus_shows_both_sides(page, url):
    open_page(page, url, "example=cat&view=versus&t=0.05")
    run, state = current(page)
    before = page.evaluate("liteDetr.plot.node.data.length")
    assert before == len(run.shown(0.05))
    compute(page)
    summary = versus.summary(run, state)
    sides = [sum(pair[place] is not None for pair in summary["pairs"]) for place in (0, 1)]
    axes = page.evaluate("liteDetr.plot.node.data.map(({ xaxis }) => xaxis)")
    assert [axes.count("x"), axes.count("x2")] == sides
    assert sides[0] == before  # the left side is this run's model again, on the same pixels
    assert facts(page) == [value for _, value in summary["facts"]]
    left, right = (summary["results"][side] for side in ("left", "right"))
    assert left["encoder_gmacs"] == pytest.approx(run.cost.encoder)
    assert left["encoder_gmacs"] < right["encoder_gmacs"]


def test_the_leaks_of_a_heavy_model_come_by_themselves(page, url, monkeypatch):
    monkeypatch.setattr(leak, "HEAVY", 0.0)
    open_page(page, url, "example=coffee")
    run, state = current(page)
    for key in [leak.job(run, state), *(f"leak {name}" for name in run.step_names)]:
        run.extras._held.pop(key, None)
    page.locator('[role="tab"][data-view="leak"]').click()
    page.wait_for_function("liteDetr.work.job?.done && liteDetr.work.ticket === null")
    settle(page)
    assert page.locator('[data-part="work"]').is_hidden()
    table = "[...document.querySelectorAll('.ld-chart')].map(({ data }) => data?.[0].z).find((z) => z)"
    shares = page.evaluate(f"{table}.map((row) => [...row])")
    assert len(shares) == len(run.step_names)
    assert all(share is not None for row in shares for share in row)


def test_mattered_mutes_by_row_and_by_control(page, url):
    open_page(page, url, "example=cat&view=detections")
    query = page.evaluate("liteDetr.info.detections[0].query")
    open_page(page, url, f"example=cat&view=mattered&q={query}")
    compute(page)
    run, state = current(page)
    known = run.extras.get(mattered.job(run, state))
    assert page.locator('[data-part="view-table"] tbody tr').count() == mattered.ROWS
    row = page.locator('[data-part="view-table"] tbody tr').first
    strongest = row.locator("td").first.inner_text()
    row.click()
    settle(page)
    assert page.evaluate("liteDetr.state.mute") == strongest
    assert page.locator('[data-part="view-table"] tbody tr[aria-current="true"] td').first.inner_text() == strongest
    assert page.locator('[data-part="work"]').is_hidden()  # each point was muted already: nothing is left to compute
    muted = known.outcomes[strongest]
    change = known.points.change[known.points.names.index(strongest)]
    assert muted.score - known.score == pytest.approx(change, abs=1e-5)
    assert any(text.startswith(f"{muted.score:.3f} (") for text in facts(page))
    dashed = page.evaluate("[...liteDetr.plot.node.data.find(({ line }) => line?.dash === 'dash').x]")
    assert [min(dashed), max(dashed)] == pytest.approx([muted.box[0], muted.box[2]], abs=0.01)
    page.locator('[data-control="mute"] select').select_option("step")
    settle(page)
    assert any(text.startswith(f"{known.outcomes['step'].score:.3f} (") for text in facts(page)[3:])
    crossed = page.evaluate("liteDetr.plot.node.data.flatMap(({ marker }) => marker ? [...marker.symbol] : [])")
    assert set(crossed) == {"x-thin-open"}
