"""Pictures of every view and every stop of the tour, to be looked at, and what a script sees: errors, overflow, controls out of
sight.

    python -m tests.browser.sweep FOLDER [--url http://127.0.0.1:7860]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from app.lessons import lesson
from app.run.state import LANGUAGES
from app.views import VIEWS
from tests.app import live
from tests.browser.conftest import ARGUMENTS, CHROMIUM

READY = "window.liteDetr?.info && document.querySelector('.ld').dataset.busy === 'no' && !liteDetr.asking && !liteDetr.pending"
WIDER = "document.documentElement.scrollWidth > window.innerWidth"
TURN = """() => [...document.querySelectorAll('.ld-turn button, .ld-tour h3')].filter((node) => {
    const { top, bottom } = node.getBoundingClientRect();
    return top < 0 || bottom > window.innerHeight;
}).map(({ textContent }) => textContent)"""
"""Names of the tour's own controls that are not in sight."""


@dataclass(frozen=True)
class Screen:
    """A window: its size, whether it is touched, light or dark, and the language."""

    width: int
    height: int
    touch: bool = False
    scheme: str = "light"
    lang: str = "en"

    def __str__(self) -> str:
        return f"{self.width}x{self.height}-{self.scheme}-{self.lang}"


SCREENS = (
    Screen(1400, 900),
    Screen(1400, 900, scheme="dark", lang="ko"),
    Screen(1280, 720, lang="ko"),
    Screen(1024, 768),
    Screen(768, 1024, scheme="dark"),
    Screen(844, 390, touch=True),
    Screen(390, 844, touch=True, lang="ko"),
)


def sweep(browser: Browser, url: str, folder: Path) -> Iterator[str]:
    """Write the pictures; what is wrong, as lines."""
    states = {name: f"view={name}&example=astronaut" for name in VIEWS}
    tours = {f"tour-{stop:02}": f"tour={stop}" for stop in range(1, len(lesson("en")) + 1)}
    for screen in SCREENS:
        size = {"width": screen.width, "height": screen.height}
        context = browser.new_context(viewport=size, color_scheme=screen.scheme, has_touch=screen.touch, is_mobile=screen.touch,
                                      reduced_motion="reduce")  # fmt: skip
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        for name, query in (states | (tours if screen.width in (1280, 390) else {})).items():
            page.goto(f"{url}/?{query}&lang={screen.lang}")
            page.wait_for_function(READY)
            page.screenshot(path=folder / f"{screen}-{name}.png")
            if page.evaluate(WIDER):
                yield f"{screen} {name}: wider than the window"
            if name in tours and screen.width == 1280 and (hidden := page.evaluate(TURN)):
                yield f"{screen} {name}: not in sight: {', '.join(hidden)}"
            yield from (f"{screen} {name}: {error}" for error in errors)
            errors.clear()
        context.close()


def main() -> int:
    """The command; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.sweep", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", help="of a page that runs (default: one of its own, with small inputs)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    assert set(LANGUAGES) == {screen.lang for screen in SCREENS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        wrong = list(sweep(browser, given.url or live.address(), given.folder))
    print("\n".join(wrong) or "nothing wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
