"""The page under its largest canvas: `python -m benchmarks.page` (a minute; needs Chromium).

1,024 positions in 1,024 steps, as fast as the page takes them: the longest task of its thread, and the memory after the
first run and the last. The stream is made here, so that the page is measured and not the model.
"""

import json
import shutil
from collections.abc import Iterator

import typer
from playwright.sync_api import CDPSession, Page, sync_playwright

from tests.live_server import LiveServer

_SIZE = 1024
_MASK = 4


def main(runs: int = 30) -> None:
    """Print the longest task, the time of a run, and the memory after the first run and the last."""
    chromium = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with LiveServer() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
        page = browser.new_page(reduced_motion="reduce")
        page.goto(server.url)
        body = "".join(_events())
        page.route("**/v1/denoise", lambda route: route.fulfill(content_type="text/event-stream", body=body))
        page.evaluate(
            """() => {
                window.longest = 0;
                const keep = (entry) => (longest = Math.max(longest, entry.duration));
                new PerformanceObserver((list) => list.getEntries().forEach(keep)).observe({entryTypes: ["longtask"]});
            }"""
        )
        session = page.context.new_cdp_session(page)
        sizes = [_run(page, session) for _ in range(runs)]
        longest = page.evaluate("longest")
        browser.close()
    typer.echo(f"{runs} runs of {_SIZE} positions in {_SIZE} steps, {len(body) / 2**20:.1f} MiB each")
    typer.echo(f"longest task {longest:.0f} ms; heap after runs 1, {runs // 2}, {runs}: "
               f"{sizes[0]:.1f}, {sizes[runs // 2 - 1]:.1f}, {sizes[-1]:.1f} MiB")  # fmt: skip


def _run(page: Page, session: CDPSession) -> float:
    """Run once to the end; the MiB in use afterwards, garbage collected."""
    page.get_by_role("radio", name="Completion").check()
    page.locator("#prompt").fill("x")
    page.get_by_role("button", name="Generate").click()
    page.locator("#panes [data-part=result]").wait_for(timeout=60_000)
    assert page.locator("#panes .cell[data-state=mask]").count() == 0
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 2**20


def _events() -> Iterator[str]:
    start = {
        "id": "denoise-1", "model": "m", "created": 0, "prompt_tokens": 1, "gen_length": _SIZE, "block_length": 32,
        "steps": _SIZE, "mask_token_id": _MASK, "special_tokens": {}, "token_ids": [_MASK] * _SIZE,
        "generation_params": {},
    }  # fmt: skip
    yield _event("start", start)
    for step in range(_SIZE):
        top = [{"token_id": 10 + i, "text": " word", "logprob": -0.1 * i} for i in range(5)]
        change = {"op": "commit", "step": step, "position": step, "token_id": 10, "text": " word", "confidence": 0.9}
        yield _event("step", {"step": step, "block": step // 32, "changes": [{**change, "top_logprobs": top}],
                              "masked": _SIZE - 1 - step, "elapsed_ms": float(step)})  # fmt: skip
    usage = {"prompt_tokens": 1, "completion_tokens": _SIZE, "denoising_steps": _SIZE, "forward_passes": _SIZE}
    done = {"text": " word" * _SIZE, "finish_reason": "length", "usage": usage, "token_ids": [10] * _SIZE}
    yield _event("done", done)


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    typer.run(main)
