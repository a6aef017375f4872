"""What tests of the page do with it, and a small stream to answer it with."""

import json
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

FOX = "Tell me a story about a fox."
MASK = 4

START = {
    "id": "denoise-1",
    "model": "m",
    "created": 0,
    "prompt_tokens": 3,
    "gen_length": 2,
    "block_length": 2,
    "steps": 2,
    "mask_token_id": MASK,
    "special_tokens": {"1": "<|endoftext|>", str(MASK): "<|mdm_mask|>", "5": "<|eot_id|>"},
    "token_ids": [MASK, MASK],
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "denoising_steps": 2, "forward_passes": 2}
DONE = {"text": "A\nfox", "finish_reason": "length", "usage": USAGE, "token_ids": [10, 11]}


def commit(step: int, position: int, token_id: int, text: str, confidence: float) -> dict[str, Any]:
    change = {"op": "commit", "step": step, "position": position, "token_id": token_id}
    changes = [{**change, "text": text, "confidence": confidence}]
    return {"step": step, "block": 0, "changes": changes, "masked": 1 - step, "elapsed_ms": 5.0 * step}


FIRST = commit(0, 1, 11, "\nfox", 0.2)
SECOND = commit(1, 0, 10, "A", 0.9)


def sse(*events: tuple[str, Any], first_id: int = 0) -> str:
    return "".join(
        f"id: {i}\r\nevent: {name}\r\ndata: {json.dumps(data)}\r\n\r\n"
        for i, (name, data) in enumerate(events, start=first_id)
    )


def answer(page: Page, body: str, path: str = "**/v1/denoise") -> list[Any]:
    """Answer the page's requests to `path` in the server's place; gives the list they are collected in."""
    requests = []

    def fulfill(route: Route) -> None:
        requests.append(route.request)
        route.fulfill(content_type="text/event-stream", body=body)

    page.route(path, fulfill)
    return requests


def generate(page: Page, prompt: str = FOX, **settings: str) -> None:
    page.locator("#prompt").fill(prompt)
    for name, value in settings.items():
        page.locator(f"[name={name}]").fill(value)
    page.get_by_role("button", name="Generate").click()


def generate_to_the_end(page: Page, prompt: str = FOX, **settings: str) -> str:
    generate(page, prompt, **settings)
    watch_to_the_end(page)
    return part(page, "text").first.text_content() or ""


def watch_to_the_end(page: Page, timeout: float = 60_000) -> None:
    """Wait until every run on the page is done and was shown to its end."""
    expect(page.locator("#status")).to_contain_text("Done", timeout=timeout)
    for result in part(page, "result").all():
        expect(result).to_be_visible(timeout=timeout)


def part(page: Page, name: str) -> Locator:
    """A part of every run on the page."""
    return page.locator(f"#panes [data-part='{name}']")


def seek(page: Page, frame: int) -> None:
    page.get_by_label("Recorded step").fill(str(frame))


def play(page: Page) -> str:
    """Play, and give the step that the first frame shows; in one go, since the film does not wait for the test."""
    shown: str = page.evaluate(
        """async () => {
            const play = document.querySelector("#play");
            play.click();
            await new Promise(requestAnimationFrame);
            if (play.ariaLabel !== "Pause") return play.outerHTML;
            return document.querySelector("#panes [data-part=step]").textContent;
        }"""
    )
    return shown


def num_masks(page: Page) -> int:
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return page.locator(".canvas .cell[data-state=mask]").count()


# A whole stream of two steps.
TWO = sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", DONE))
