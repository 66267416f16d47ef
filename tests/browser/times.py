"""What a visitor waits for in the browser: a click until its points are drawn, a tab, a step of the film, the
threshold under a finger.

    python -m tests.browser.times http://127.0.0.1:7860 [another page …] [--rounds 7]

Pages are measured in turns, in one browser, so that other work on the machine disturbs all alike. Milliseconds, medians: from the
event until the frame that shows the answer; of it, the question's way to the server and back, and Plotly's drawing.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict

from playwright.sync_api import Page, sync_playwright

from app.views import VIEWS
from tests.browser.conftest import ARGUMENTS, CHROMIUM, DESK
from tests.browser.sweep import READY

WATCH = """() => {
    const { plot } = liteDetr;
    const timed = (owner, name, of) => {
        const plain = owner[name].bind(owner);
        owner[name] = async (...given) => {
            const begun = performance.now();
            const answer = await plain(...given);
            window.spent[of] = (window.spent[of] ?? 0) + performance.now() - begun;
            return answer;
        };
    };
    timed(liteDetr, 'ask', 'server');
    timed(plot, 'draw', 'drawing');
    window.rest = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
    window.frame = () => new Promise((done) => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = done;
        port2.postMessage(0);
    }));
    // From an act until its figure is in a frame.
    window.measure = async (act) => {
        await rest(250);
        window.spent = {};
        const { seq } = liteDetr;
        const drawn = new Promise((done) => {
            const { draw } = plot;
            plot.draw = async (...given) => { await draw(...given); plot.draw = draw; done(); };
        });
        const begun = performance.now();
        act();
        await drawn;
        await frame();
        const whole = performance.now() - begun;
        while (liteDetr.asking || liteDetr.pending) await rest(5);
        return { whole, ...window.spent };
    };
    window.tap = (x, y) => {
        const target = plot.node.querySelector('.nsewdrag');
        const box = target.getBoundingClientRect();
        const { xaxis, yaxis } = plot.node._fullLayout;
        const clientX = box.left + xaxis.d2p(x * plot.size.width), clientY = box.top + yaxis.d2p(y * plot.size.height);
        for (const name of ['pointerdown', 'mousedown', 'pointerup', 'mouseup']) {
            const kind = name.startsWith('pointer') ? PointerEvent : MouseEvent;
            target.dispatchEvent(new kind(name, { clientX, clientY, bubbles: true, cancelable: true, button: 0 }));
        }
    };
    // The longest time between two frames while a slider is dragged over its way.
    window.drag = async () => {
        const slider = document.querySelector('[data-part="threshold"]');
        const gaps = [];
        let last = performance.now(), on = true;
        const watch = (now) => { gaps.push(now - last); last = now; if (on) requestAnimationFrame(watch); };
        await rest(250);
        await frame();
        last = performance.now();
        requestAnimationFrame(watch);
        for (let value = 0.9; value >= 0.1; value -= 0.02) {
            slider.value = value.toFixed(2);
            slider.dispatchEvent(new Event('input', { bubbles: true }));
            await rest(16);
        }
        while (liteDetr.asking || liteDetr.pending) await rest(5);
        on = false;
        gaps.sort((a, b) => a - b);
        return { whole: gaps.at(-1), 'of 95 %': gaps[Math.floor(0.95 * gaps.length)] };
    };
}"""


def measure(page: Page) -> dict[str, dict[str, float]]:
    """One round: what -> milliseconds by part."""
    found = {}
    state = "Object.assign(liteDetr.state, { view: 'points', q: '', at: '0.5,0.4', step: '' }); liteDetr.look({})"
    page.evaluate(f"measure(() => {{ {state} }})")
    for number, (x, y) in enumerate([(0.3, 0.6), (0.6, 0.3), (0.45, 0.5)]):
        found[f"click {number}"] = page.evaluate("([x, y]) => measure(() => tap(x, y))", [x, y])
    for name in VIEWS:
        tab = f'document.querySelector(\'[role="tab"][data-view="{name}"]\').click()'
        found[f"tab {name}"] = page.evaluate(f"measure(() => {tab})")
    page.evaluate("measure(() => liteDetr.change({ view: 'film', step: 'B1 high' }))")
    for number in range(4):
        found[f"film {number}"] = page.evaluate("measure(() => liteDetr.rail.step(1))")
    page.evaluate("measure(() => liteDetr.change({ view: 'detections', t: '' }))")
    found["threshold, longest frame"] = page.evaluate("drag()")
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.times", description=__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--example", default="astronaut")
    given = parser.parse_args()
    rows: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        pages = []
        for url in given.urls:
            page = browser.new_context(viewport=DESK).new_page()
            page.goto(f"{url}/?example={given.example}")
            page.wait_for_function(READY)
            page.evaluate(WATCH)
            pages.append((url, page))
        for turn in range(given.rounds + 1):
            for url, page in pages:
                page.bring_to_front()
                for what, parts in measure(page).items():
                    for part, value in parts.items() if turn else ():  # the first round fills what is kept
                        rows[what, url][part].append(value)
    for (what, url), parts in sorted(rows.items(), key=lambda row: row[0][0]):
        print(f"{what:26} {url:26}", *(f"{part} {statistics.median(values):6.0f}" for part, values in parts.items()))


if __name__ == "__main__":
    main()
