"""The API page, in a real browser."""

from playwright.sync_api import Page, expect

from tests.live_server import ForkedServer


def test_the_api_page_works_without_other_hosts(page: Page, live_server: str) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(f"{live_server}/docs")
    expect(page.locator(".opblock")).not_to_have_count(0)
    expect(page.get_by_text("/v1/denoise", exact=True).first).to_be_visible()
    outside = [url for url in addresses if not url.startswith((f"{live_server}/", "data:"))]
    assert len(addresses) > 4 and outside == []


def test_the_api_page_works_behind_a_key_and_a_root_path(page: Page) -> None:
    with ForkedServer("--api-key", "secret", "--root-path", "/llm") as server:
        page.goto(f"{server.url}/llm/docs")
        expect(page.get_by_text("/v1/denoise", exact=True).first).to_be_visible()
        page.get_by_role("button", name="Authorize").first.click()
        page.locator(".auth-container input").fill("secret")
        page.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close", exact=True).click()
        page.locator(".opblock", has_text="/v1/models").first.click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table")).to_contain_text("llada-demo")
