"""The page in every state, checked by axe-core; and for readers with colours of their own."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.clients.web.page_helpers import (
    FIRST,
    START,
    TWO,
    answer,
    generate,
    generate_to_the_end,
    part,
    seek,
    sse,
)
from tests.random_cases import IS_FUZZING

ERROR = {"error": {"message": "steps is 2; it must be more", "type": "invalid", "param": "steps", "code": None}}


def idle(page: Page) -> None:
    expect(page.locator("#health")).to_have_text("ready")


def running(page: Page) -> None:
    page.route("**/v1/denoise", lambda route: None)
    generate(page)


def done(page: Page) -> None:
    generate_to_the_end(page, "What is the capital of France?", max_tokens="32")
    page.locator("#panes .cell").nth(1).focus()


def in_the_middle(page: Page) -> None:
    page.get_by_role("radio", name="Prediction").check()
    done(page)
    seek(page, 12)


def ordered(page: Page) -> None:
    page.get_by_role("radio", name="Order").check()
    done(page)


def as_text(page: Page) -> None:
    page.get_by_role("radio", name="Text", exact=True).check()
    done(page)


def failed(page: Page) -> None:
    page.route("**/v1/denoise", lambda route: route.fulfill(status=400, json=ERROR))
    generate(page, steps="2")
    expect(page.locator("#notice")).to_be_visible()


def compared(page: Page) -> None:
    answer(page, TWO)
    page.locator("#compare").select_option("balanced")
    generate_to_the_end(page)
    page.locator("#copy").click()


def infilling(page: Page) -> None:
    page.get_by_role("button", name="Run: Fill the gaps").click()
    expect(part(page, "result")).to_be_visible(timeout=30_000)


def pinned(page: Page) -> None:
    page.locator("#pins-panel summary").click()
    page.get_by_role("button", name="Pin a word").click()


def changed(page: Page) -> None:
    done(page)
    for position in (0, 2):
        page.locator("#panes .cell").nth(position).click()
    page.keyboard.type("x")
    page.keyboard.press("Enter")


def branched(page: Page) -> None:
    changed(page)
    page.get_by_role("button", name="Go on from here").click()
    expect(page.locator("#branches")).to_be_visible()
    expect(part(page, "result").nth(1)).to_be_visible()


STATES = [
    *(idle, running, done, in_the_middle, ordered, as_text, failed, compared, infilling, pinned, changed, branched),
]


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_in_any_state_width_and_scheme(page: Page, state: Callable[[Page], None]) -> None:
    state(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        # Colours do not depend on the width: `make fuzz` looks at the dark ones in every width too.
        for width in (390, 1280, 1920) if scheme == "light" or IS_FUZZING else (1280,):
            page.set_viewport_size({"width": width, "height": 900})
            results = Axe().run(page)
            assert results.violations_count == 0, results.generate_report()
    for width in (320, 390, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_with_forced_colours_the_active_block_still_has_a_border(browser: Browser, live_server: str) -> None:
    context = browser.new_context(forced_colors="active", reduced_motion="reduce")
    page = context.new_page()
    page.goto(live_server)
    answer(page, sse(("start", START), ("step", FIRST)))
    generate(page)
    expect(page.locator(".canvas .block.is-active")).to_have_css("border-top-width", "2px")
    context.close()
