import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.app import live

PATIENCE = 1000 * int(os.environ.get("LITEDETR_PATIENCE", "60"))
"""Milliseconds that a test waits for the page; more where the machine has much else to do."""
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="session")
def url() -> str:
    return live.address()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=DESK, color_scheme="light", accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture(scope="session")
def shared_page(context) -> Page:
    return watched(context)


@pytest.fixture
def page(shared_page) -> Iterator[Page]:
    """One page for all tests: loading it is most of a test's time. `driver.open_page` gives it a fresh state."""
    yield from _lent(shared_page)
    if shared_page.viewport_size != DESK:
        shared_page.set_viewport_size(DESK)


@pytest.fixture(scope="session")
def shared_phone(browser) -> Iterator[Page]:
    context = browser.new_context(viewport=PHONE, color_scheme="light", has_touch=True, is_mobile=True, device_scale_factor=2)
    context.set_default_timeout(PATIENCE)
    yield watched(context)
    context.close()


@pytest.fixture
def phone(shared_phone) -> Iterator[Page]:
    """The page by touch, 390 pixels wide; one for all tests, as `page`."""
    yield from _lent(shared_phone)


def _lent(page: Page) -> Iterator[Page]:
    """A shared page for one test, which must leave no errors and ask nobody else."""
    page.strangers.clear()
    page.errors.clear()
    yield page
    assert page.strangers == []
    assert page.errors == []


def watched(context: BrowserContext) -> Page:
    """A page that notes requests to other machines, and errors in its scripts."""
    page = context.new_page()
    page.strangers, page.errors = [], []
    here = ("http://127.0.0.1:", "data:", "blob:", "about:")
    page.on("request", lambda request: None if request.url.startswith(here) else page.strangers.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    return page
