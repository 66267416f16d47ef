"""The README's pictures of the page: start it, then

    python -m docs.pictures http://127.0.0.1:7860
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent
STATES = {
    "page": "example=astronaut&view=points&step=decoder+3&q=0",
    "film": "example=motorcycle&view=film&step=B2+all",
    "attended": "example=hopper&view=attended&step=B3+all",
    "mattered": "example=motorcycle&view=mattered&step=decoder+3&q=0",
}
"""What is pictured, as the links that the page hands out."""
IDLE = "liteDetr.root.dataset.busy === 'no' && !(liteDetr.asking || liteDetr.pending || liteDetr.work.ticket)"
READY = f"window.liteDetr?.info && {IDLE}"
COMPUTE = '[data-part="compute"]:visible'


def main() -> None:
    """Write docs/NAME.png for every state, 1400 x 900, light."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, state in STATES.items():
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(f"{sys.argv[1]}/?__theme=light&{state}")
            page.wait_for_function(READY, timeout=120_000)
            for button in page.locator(COMPUTE).all():
                button.click()
                page.wait_for_function(READY, timeout=120_000)
            page.wait_for_timeout(3000)  # pictures fade in
            page.screenshot(path=DOCS / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
