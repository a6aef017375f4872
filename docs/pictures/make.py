"""Makes the pictures of the README and of docs/: `make pictures`. All of them show the real server and the demo model.

Needs Chromium. A picture of a run is the page's order view: the darker a token, the later it was committed.
"""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from clients import LLaDAClient
from tests.live_server import LiveServer

FOLDER = Path(__file__).parent
STORY = "Tell me a story about a cat."
_COMMON = {"max_tokens": 96, "seed": 1}

# The runs of docs/sampling.md, all of one prompt.
RUNS: Mapping[str, Mapping[str, str | int | float]] = {
    "blocks-32": {"block_length": 32},
    "blocks-16": {"block_length": 16},
    "one-block": {"method": "fixed_length"},
    "origin": {"method": "semi_autoregressive_origin"},
    "steps-24": {"steps": 24},
    "random": {"remasking": "random"},
    "entropy": {"remasking": "entropy"},
    "threshold": {"confidence_threshold": 0.9},
    "cache": {"confidence_threshold": 0.9, "cache": "dual"},
    "guidance": {"cfg_scale": 1.5},
}
# Fields with an option of their own in the terminal, and with a control on the page.
_OPTIONS = ("block_length", "method", "steps", "preset", "cfg_scale")
_ON_THE_PAGE = (*_OPTIONS, "remasking")
_WIDTH = 760
_FILM_FRAMES = 40
_FRAME_MS, _LAST_FRAME_MS = 110, 2500


def command_of(name: str) -> str:
    """The command that makes a run of `RUNS` in the terminal."""
    settings = RUNS[name]
    options = [f"--{field.replace('_', '-')} {value}" for field, value in settings.items() if field in _OPTIONS]
    options += [f"--set {field}={value}" for field, value in settings.items() if field not in _OPTIONS]
    return f'llada watch "{STORY}" --max-tokens {_COMMON["max_tokens"]} --seed {_COMMON["seed"]} {" ".join(options)}'


def main() -> None:
    """Write every picture."""
    chromium = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with LiveServer() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
        for name in RUNS:
            _picture_of_run(browser.new_page(viewport={"width": _WIDTH, "height": 900}), server.url, name)
        page = browser.new_page(viewport={"width": 1200, "height": 1150}, color_scheme="dark", reduced_motion="reduce")
        _picture_of_page(page, server.url)
        _film_of_page(page, server.url)
        browser.close()
        _film_of_terminal(server.url)


def figures_of(server: str, name: str) -> str:
    """What a run of `RUNS` cost, for the captions."""
    with LLaDAClient(server) as client:
        usage = client.chat(STORY, **_COMMON, **RUNS[name]).usage
    return f"{usage['denoising_steps']} steps, {usage['forward_passes']} forward passes"


def _open(page: Page, server: str, *, view: str, settings: Mapping[str, str | int | float], compare: str = "") -> None:
    fields = {"prompt": STORY, "view": view, "compare": compare}
    fields |= {f"set.{name}": str(value) for name, value in {**_COMMON, **settings}.items()}
    page.goto("about:blank")
    page.goto(f"{server}/#{urlencode(fields)}")
    page.locator("#health[data-state=ready]").wait_for()
    # What stays in view while a reader scrolls would cover the pictures.
    page.locator(".runbar, #replay").evaluate_all("bars => bars.forEach((bar) => (bar.style.position = 'static'))")


def _run(page: Page) -> None:
    page.locator("#speed").select_option("live")
    page.get_by_role("button", name="Generate").click()
    page.locator("#panes [data-part=result]").last.wait_for(timeout=60_000)
    page.mouse.move(0, 0)


def _picture_of_run(page: Page, server: str, name: str) -> None:
    settings = {field: value for field, value in RUNS[name].items() if field in _ON_THE_PAGE}
    more = {field: value for field, value in RUNS[name].items() if field not in _ON_THE_PAGE}
    _open(page, server, view="order", settings={**settings, **({"more": json.dumps(more)} if more else {})})
    _run(page)
    _write(_image(page.locator("#panes [data-part=canvas]").screenshot()), f"{name}.png")
    page.close()


def _picture_of_page(page: Page, server: str) -> None:
    _open(page, server, view="confidence", settings={"block_length": 96})
    _run(page)
    page.get_by_label("Recorded step").fill("70")
    page.locator("#panes .cell").nth(9).hover()
    page.evaluate("window.scrollTo(0, 0)")
    _write(_image(page.screenshot()), "page.png")


def _film_of_page(page: Page, server: str) -> None:
    """The comparison, step by step: what a reader sees who presses play."""
    _open(page, server, view="confidence", compare="balanced", settings={"max_tokens": 64})
    _run(page)
    page.locator("#clock").select_option("steps")
    page.locator("#panes [data-part=result], #panes .inspector").evaluate_all(
        "parts => parts.forEach((p) => p.remove())"
    )
    frames = []
    for number in range(_FILM_FRAMES + 1):
        page.get_by_label("Recorded step").fill(str(round(1000 * number / _FILM_FRAMES)))
        page.evaluate("() => new Promise(requestAnimationFrame)")
        frames.append(_image(page.locator("#panes").screenshot()))
    height = max(frame.height for frame in frames)
    padded = [Image.new("RGB", (frame.width, height), frame.getpixel((0, 0))) for frame in frames]
    for picture, shown in zip(padded, frames, strict=True):
        picture.paste(shown)
    palette = padded[len(padded) // 2].quantize(128)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in padded]
    durations = [_FRAME_MS] * _FILM_FRAMES + [_LAST_FRAME_MS]
    file = FOLDER / "page.gif"
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)


def _film_of_terminal(server: str) -> None:
    options = ["--server", server, "--max-tokens", "64", "--seed", "1", "--save", str(FOLDER / "terminal.gif")]
    command = [sys.executable, "-m", "clients.terminal.cli", "watch", STORY, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _image(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def _write(image: Image.Image, name: str) -> None:
    """Write a picture with a palette, which takes a third of the bytes."""
    image.quantize(256).save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    main()
