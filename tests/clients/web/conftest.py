"""A real Chromium for the tests of the page."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The path of Chromium; without it the page's tests are skipped or, in CI, fail."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    reason = f"the page's tests need Chromium, none of {', '.join(_NAMES)} is on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    # Not session: while playwright runs, no other test of this thread can start an event loop.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(browser: Browser, live_server: str) -> Iterator[BrowserContext]:
    """A window whose first tab keeps the process that draws the server's pages: later ones load three times faster."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    context.new_page().goto(f"{live_server}/health")
    yield context
    context.close()


@pytest.fixture
def page(window: BrowserContext, live_server: str) -> Iterator[Page]:
    """The page in a new tab, showing runs as they come; a script error or a broken content policy fails the test."""
    first, *_ = window.pages
    page = window.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.goto(live_server)
    yield page
    for opened in window.pages:
        if opened is not first:
            opened.close()
    first.evaluate("localStorage.clear()")
    assert faults == []
