"""What the tests do to the page, and read from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import axe_playwright_python
import numpy as np
from playwright.sync_api import Page

from app.run.choice import choose
from app.run.run import Run
from app.run.state import ViewState
from app.views import points, view_of
from tests.app import live

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
_SERIOUS = """async (parts) => {
    const rules = document.body.classList.contains('dark') ? { runOnly: ['color-contrast'] } : {};
    const context = { include: parts, exclude: ['.ld-plot svg', '.ld-chart svg', '.ld-shares svg'] };
    const found = await axe.run(context, { resultTypes: ['violations'], preload: false, ...rules });
    return found.violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
      .map(({ id, nodes }) => [id, nodes.slice(0, 3).map(({ html }) => html.slice(0, 160))]);
}"""


def open_page(page: Page, url: str, query: str = "t=0", load: bool = False) -> None:
    """The page in the state of a link; loaded anew where it must be, else put in that state as if it were."""
    if load or not page.url.startswith(url):
        page.goto(f"{url}/?__theme=light&{query}")
        page.wait_for_function("window.liteDetr?.info && document.querySelector('.ld').dataset.busy === 'no'")
        return
    page.evaluate(
        """async (query) => {
        const { plot, info, examples, root } = liteDetr;
        for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
        const state = Object.fromEntries(new URLSearchParams(query));
        const example = state.example ?? examples[0];
        const here = info?.example === example && info.source === (state.model ?? '') && root.dataset.busy === 'no';
        liteDetr.cancel(liteDetr.ticket);
        liteDetr.work.stop();
        plot.zoomed = false;
        liteDetr.state = { ...state, example };
        liteDetr.translate();
        liteDetr.rail.halt();
        root.querySelector('[data-part="error"]').hidden = true;
        if (here) await liteDetr.look({});
        else {
            liteDetr.info = null;
            liteDetr.analyse({ example }, true);
        }
    }""",
        query,
    )
    page.wait_for_function("liteDetr.info && liteDetr.root.dataset.busy === 'no' && !liteDetr.asking && !liteDetr.pending")
    page.evaluate("liteDetr.plot.reset()")


def themes(page: Page) -> Iterator[str]:
    """Puts the page into the light, then into the dark."""
    page.emulate_media(reduced_motion="reduce")  # colours change at once, not in a fade of which axe sees the middle
    try:
        for theme in ("light", "dark"):
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
            yield theme
    finally:
        page.evaluate("document.body.classList.remove('dark')")
        page.emulate_media(reduced_motion="no-preference")


def serious(page: Page, *parts: str) -> list[list]:
    """What axe-core finds serious in parts of the page (CSS selectors; none for all of it): by all its rules in the light, by
    contrast in the dark, where the rest is the same."""
    if not page.evaluate("!!window.axe"):
        page.add_script_tag(path=AXE)
    return page.evaluate(_SERIOUS, list(parts or [".ld"]))


def too_wide(page: Page, *parts: str) -> list[str]:
    """What of some parts (CSS selectors) reaches beyond the screen's right edge, and whether the page itself does."""
    return page.evaluate(
        """(parts) => {
        const wide = [...document.querySelectorAll(parts.join())]
          .filter((node) => node.offsetParent && !node.closest('.ld-view-table, svg, .ld-table-box, .ld-track, [role=tablist]'))
          .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5).map((node) => node.outerHTML.slice(0, 80));
        return document.documentElement.scrollWidth > innerWidth ? ['the page', ...wide] : wide;
    }""",
        list(parts),
    )


def send(page: Page, path: Path) -> None:
    """Upload a photo and wait for its result, or for the sentence that refuses it."""
    before = page.evaluate("liteDetr.info?.run")
    page.set_input_files('[data-part="file"]', str(path))
    page.wait_for_function(
        """before => document.querySelector('.ld').dataset.busy === 'no'
        && (liteDetr.info?.run !== before || !document.querySelector('[data-part="error"]').hidden)""",
        arg=before,
    )


def settle(page: Page) -> None:
    """Wait until every look-up is answered and drawn."""
    page.wait_for_function("!liteDetr.asking && !liteDetr.pending")


def click(page: Page, x: float, y: float) -> None:
    """A mouse click at x, y in [0, 1] of the photo."""
    page.mouse.click(*place(page, x, y))
    settle(page)


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the photo is on the screen."""
    return tuple(
        page.evaluate(
            """([x, y]) => {
            const { node, size } = liteDetr.plot;
            const box = node.querySelector('.nsewdrag').getBoundingClientRect();
            const { xaxis, yaxis } = node._fullLayout;
            return [box.left + xaxis.d2p(x * size.width), box.top + yaxis.d2p(y * size.height)];
        }""",
            [x, y],
        )
    )


def current(page: Page) -> tuple[Run, ViewState]:
    """The run and the state that the page shows."""
    return live.engine().store.get(page.evaluate("liteDetr.info.run")), ViewState.from_query(page.evaluate("liteDetr.state"))


def drawn(page: Page) -> dict[str, np.ndarray]:
    """The sampling points on the screen by scale, in the photo's pixels."""
    traces: dict[str, list[list[float]]] = {}
    for point in page.evaluate("liteDetr.plot.points()"):
        traces.setdefault(point["scale"], []).append([point["x"], point["y"]])
    return {scale: np.array(rows) for scale, rows in traces.items()}


def assert_drawn(page: Page) -> None:
    """The points on the screen are the trace's, and the page says so in marks that Plotly really drew."""
    run, state = current(page)
    traces = points.VIEW.figure(run, state).data
    expected = {trace.meta: np.stack((trace.x, trace.y), 1) for trace in traces if isinstance(trace.meta, str)}
    shown = drawn(page)
    assert set(shown) == set(expected)
    for scale, rows in expected.items():
        np.testing.assert_allclose(shown[scale], rows, rtol=1e-5, atol=1e-3)
    assert page.locator(".ld-stop.now").get_attribute("data-stop") == choose(run, state).step.name
    marks = page.evaluate("document.querySelectorAll('.ld-plot .scatterlayer .points path').length")
    assert marks >= sum(map(len, expected.values()))


def _coordinates(page: Page) -> list[list[list[float | None] | None]]:
    """x and y of every trace that the page drew, as far as they are numbers."""
    return page.evaluate(
        """[...liteDetr.plot.node.data].map(({ x, y }) => [x, y].map((values) => values && [...values]
           .map((value) => (typeof value === 'number' ? value : null))))"""
    )


def assert_shown(page: Page) -> tuple[Run, ViewState, dict]:
    """The figure, facts and notes on the screen are the view's, for the state that the page is in."""
    run, state = current(page)
    view = view_of(state.view, run)
    assert page.locator(".ld").get_attribute("data-view") == state.view
    expected = view.figure(run, state).data
    figure = _coordinates(page)
    assert len(figure) == len(expected)
    for drawn, trace in zip(figure, expected, strict=True):
        for values, right in zip(drawn, (trace.x, trace.y), strict=True):
            if right is None or not len(right) or isinstance(next(iter(right)), str):
                continue
            right = np.array([np.nan if value is None else value for value in right], dtype=float)
            np.testing.assert_allclose(np.array(values, dtype=float), right, rtol=1e-4, atol=1e-2)
    summary = view.summary(run, state)
    facts = page.locator('[data-part="view-facts"] dd').all_inner_texts()
    assert [" ".join(text.split()) for text in facts] == [" ".join(str(value).split()) for _, value in summary.get("facts", [])]
    if "caption" in summary and state.view not in ("detections", "points"):
        assert page.inner_text('[data-part="line"]') == summary["caption"]
    charts = view.charts(run, state) if hasattr(view, "charts") else []
    assert page.locator(".ld-chart .main-svg").count() >= len(charts)
    table = summary.get("table") or {"rows": []}
    assert page.locator('[data-part="view-table"] tbody tr').count() == len(table["rows"])
    return run, state, summary
