"""What a reader keeps of the page and takes away from it."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.clients.web.page_helpers import (
    DONE,
    SECOND,
    START,
    TWO,
    answer,
    commit,
    generate_to_the_end,
    num_masks,
    part,
    seek,
    sse,
    watch_to_the_end,
)

QUESTION = "What is the capital of France?"


def saved(page: Page, kind: str, folder: Path) -> Path:
    page.locator("#export-as").select_option(kind)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    file = folder / f"run.{kind}"
    download.value.save_as(file)
    return file


def copied(page: Page, kind: str) -> str:
    page.locator("#copy-as").select_option(kind)
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_be_visible()
    return page.locator("#copied").text_content() or ""


def test_settings_survive_a_reload_and_defaults_come_back(page: Page) -> None:
    page.locator("[name=max_tokens]").fill("48")
    page.locator("[name=remasking]").select_option("margin")
    page.locator("[name=logits_eos_inf]").check()
    page.reload()
    expect(page.locator("[name=max_tokens]")).to_have_value("48")
    expect(page.locator("[name=remasking]")).to_have_value("margin")
    expect(page.locator("[name=logits_eos_inf]")).to_be_checked()
    page.get_by_role("button", name="Defaults").click()
    page.reload()
    expect(page.locator("[name=max_tokens]")).to_have_value("64")
    expect(page.locator("[name=logits_eos_inf]")).not_to_be_checked()


def test_damaged_settings_do_not_break_the_page(page: Page) -> None:
    for kept in ("{", "[1]", "7", '{"max_tokens": {"a": 1}}', '{"nonsense": 1}'):
        page.evaluate("kept => localStorage.setItem('llada-settings', kept)", kept)
        page.reload()
        expect(page.locator("#health")).to_have_text("ready")


def test_an_address_carries_prompt_settings_pins_and_view(page: Page) -> None:
    answer(page, TWO)
    page.get_by_role("radio", name="Completion").check()
    page.locator("#pins-panel summary").click()
    page.get_by_role("button", name="Pin a word").click()
    page.locator("#pins input").nth(1).fill(" a:b&c=d")
    page.get_by_role("radio", name="Order").check()
    page.locator("#compare").select_option("fast")
    prompt = "A #1 & <b>fox</b>\n狐狸 100 %"
    generate_to_the_end(page, prompt, max_tokens="48", seed="7")
    address = copied(page, "link")
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#prompt")).to_have_value(prompt)
    expect(page.get_by_role("radio", name="Completion")).to_be_checked()
    expect(page.get_by_role("radio", name="Order")).to_be_checked()
    expect(page.locator("#compare")).to_have_value("fast")
    expect(page.locator("[name=max_tokens]")).to_have_value("48")
    expect(page.locator("[name=seed]")).to_have_value("7")
    expect(page.locator("#pins input").nth(1)).to_have_value(" a:b&c=d")


def test_a_strange_address_does_not_break_the_page(page: Page) -> None:
    strange = "#prompt=x&mode=nonsense&view=9&compare=constructor&set.max_tokens=abc&pin=x&set.preset=bogus"
    address = page.url
    for fragment in (strange, "#%zz", "#prompt="):
        page.goto("about:blank")
        page.goto(address + fragment)
        expect(page.locator("#health")).to_have_text("ready")


def test_the_drawn_seed_is_shown_and_kept(page: Page) -> None:
    first = generate_to_the_end(page, QUESTION, max_tokens="32", temperature="1")
    seed = part(page, "seed").text_content() or ""
    page.get_by_role("button", name="Keep").click()
    expect(page.locator("[name=seed]")).to_have_value(seed)
    page.get_by_role("button", name="Ask again").click()
    watch_to_the_end(page)
    assert part(page, "text").text_content() == first


def test_copied_code_runs_and_gives_the_same_text(page: Page) -> None:
    text = generate_to_the_end(page, "What's the capital of France?", max_tokens="32")
    streamed = subprocess.run(["bash", "-c", copied(page, "curl")], capture_output=True, text=True, check=True).stdout
    assert json.loads(streamed.strip().splitlines()[-1].removeprefix("data: "))["text"] == text
    for kind in ("python", "openai"):
        command = [sys.executable, "-c", copied(page, kind)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.stdout.strip() == text.strip(), result.stderr


def test_copied_code_has_no_key_in_it(page: Page) -> None:
    answer(page, TWO)
    page.evaluate("sessionStorage.setItem('llada-api-key', 'secret-1')")
    generate_to_the_end(page)
    texts = [copied(page, kind) for kind in ("link", "curl", "python", "openai")]
    assert not any("secret-1" in text for text in texts)
    assert "$LLADA_API_KEY" in texts[1]


def test_a_saved_recording_is_opened_again_with_the_same_canvas(page: Page, tmp_path: Path) -> None:
    generate_to_the_end(page, QUESTION, max_tokens="32")
    cells = page.locator("#panes .cell").all_text_contents()
    file = saved(page, "json", tmp_path)
    content = json.loads(file.read_text())
    assert (content["format"], content["version"]) == ("llada-recording", 1)
    assert content["runs"][0]["request"]["messages"][0]["content"] == QUESTION
    page.reload()
    page.locator("#open").set_input_files(file)
    expect(page.locator("#status")).to_have_text("Opened run.json")
    expect(page.locator("#panes .cell")).to_have_text(cells)
    seek(page, 0)
    assert num_masks(page) == 32


def test_a_comparison_is_saved_and_opened_with_both_runs(page: Page, tmp_path: Path) -> None:
    answer(page, TWO)
    page.locator("#compare").select_option("random")
    generate_to_the_end(page)
    file = saved(page, "json", tmp_path)
    page.reload()
    page.locator("#open").set_input_files(file)
    expect(part(page, "title")).to_have_text(["exact", "random remasking"])


BAD_FILES = {
    "{": "it is not JSON",
    "[]": "it is not a llada-recording file",
    '{"format": "llada-recording", "version": 2}': "its version is 2; this page reads version 1",
    '{"format": "llada-recording", "version": 1, "runs": []}': "it must have one run, or two to compare",
    '{"format": "llada-recording", "version": 1, "runs": [{"start": {}}]}': "run 1 is damaged: ",
    '{"format": "llada-recording", "version": 1, "runs": [7]}': "run 1 is damaged: ",
}


def test_a_file_that_is_no_recording_is_refused_with_the_reason(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    for content, problem in BAD_FILES.items():
        file.write_text(content)
        page.locator("#open").set_input_files(file)
        expect(page.locator("#notice-text")).to_contain_text(f"bad.json cannot be shown: {problem}")


DAMAGES = {
    "start.block_length": lambda run: run["start"].update(block_length=0),
    "start.token_ids": lambda run: run["start"].update(token_ids=["x", 4]),
    "step 1": lambda run: run["steps"][0]["changes"][0].update(position=2),
    "step 2": lambda run: run["steps"][1]["changes"][0].update(top_logprobs=[{"token_id": 1}]),
    "done": lambda run: run["done"].update(text=None),
}


def test_a_damaged_recording_is_refused_by_what_is_wrong(page: Page, tmp_path: Path) -> None:
    answer(page, TWO)
    generate_to_the_end(page)
    file = saved(page, "json", tmp_path)
    whole = file.read_text()
    for what, damage in DAMAGES.items():
        content = json.loads(whole)
        damage(content["runs"][0])
        file.write_text(json.dumps(content))
        page.locator("#open").set_input_files(file)
        expect(page.locator("#notice-text")).to_have_text(f"run.json cannot be shown: run 1 is damaged: {what}.")


def test_given_words_are_shown_in_a_recording_of_the_terminal(page: Page, live_server: str, tmp_path: Path) -> None:
    file = tmp_path / "fill.json"
    fill = ["fill", "The capital of France is [[1]]. Bye.", "--server", live_server, "--save", str(file)]
    subprocess.run([sys.executable, "-m", "clients.terminal.cli", *fill], check=True, capture_output=True)
    page.locator("#open").set_input_files(file)
    expect(page.locator("#status")).to_have_text("Opened fill.json")
    given = page.locator("#panes .cell[data-state=fixed]").all_text_contents()
    assert "".join(given).startswith("The capital of France is") and not any("#" in text for text in given)


def test_a_link_is_to_the_run_that_is_shown(page: Page, tmp_path: Path) -> None:
    answer(page, TWO)
    page.get_by_role("radio", name="Infilling").check()
    generate_to_the_end(page, "a [[2]] fox", more='{"cache": "dual"}')
    file = saved(page, "json", tmp_path)
    page.reload()
    page.locator("#open").set_input_files(file)
    address = copied(page, "link")
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#prompt")).to_have_value("a[[2]] fox")
    expect(page.locator("[name=more]")).to_have_value('{"cache":"dual"}')
    page.locator("[name=seed]").fill("99")
    page.locator("[name=seed]").blur()
    page.reload()
    expect(page.locator("[name=seed]")).to_have_value("99")


def test_a_link_works_in_a_tab_that_shows_the_page_already(page: Page) -> None:
    page.goto(f"{page.url}#mode=completion&prompt=one")
    expect(page.locator("#prompt")).to_have_value("one")
    page.evaluate("location.hash = 'mode=chat&prompt=two'")
    expect(page.locator("#prompt")).to_have_value("two")


def test_an_exported_page_replays_offline_and_shows_the_same_canvas(page: Page, tmp_path: Path) -> None:
    nasty = "</script><img src=x onerror='window.broken=1'>"
    steps = (("step", commit(0, 1, 11, nasty, 0.2)), ("step", SECOND))
    answer(page, sse(("start", START), *steps, ("done", {**DONE, "text": nasty})))
    generate_to_the_end(page, nasty)
    cells = page.locator("#panes .cell").all_text_contents()
    file = saved(page, "html", tmp_path)
    offline = page.context.new_page()
    faults: list[str] = []
    addresses: list[str] = []
    offline.on("pageerror", lambda error: faults.append(str(error)))
    offline.on("console", lambda message: faults.append(message.text))
    offline.on("request", lambda request: addresses.append(request.url))
    offline.goto(file.as_uri())
    expect(offline.locator("#panes .cell")).to_have_text(cells)
    seek(offline, 0)
    assert num_masks(offline) == 2
    offline.locator("#speed").select_option("4")
    offline.get_by_role("button", name="Play").click()
    expect(offline.get_by_role("button", name="Play")).to_be_visible()
    expect(offline.locator("#panes .cell[data-state=mask]")).to_have_count(0)
    assert faults == [] and addresses == [file.as_uri()]
    assert offline.evaluate("window.broken") is None


def test_a_page_that_the_terminal_wrote_is_the_same(page: Page, tmp_path: Path) -> None:
    generate_to_the_end(page, QUESTION, max_tokens="32")
    recording = saved(page, "json", tmp_path)
    command = [sys.executable, "-m", "clients.terminal.cli", "replay", recording, "--save", tmp_path / "other.html"]
    subprocess.run(command, check=True, capture_output=True)
    exported, written = saved(page, "html", tmp_path).read_text(), (tmp_path / "other.html").read_text()
    without_data = [text[: text.index('id="recording"')] for text in (exported, written)]
    assert without_data[0] == without_data[1]
    assert exported[exported.index('<script type="module">') :] == written[written.index('<script type="module">') :]
    cells = page.locator("#panes .cell").all_text_contents()
    page.goto((tmp_path / "other.html").as_uri())
    expect(page.locator("#panes .cell")).to_have_text(cells)


def test_pictures_show_the_canvas_and_the_last_frame_has_no_mask(page: Page, tmp_path: Path) -> None:
    generate_to_the_end(page, QUESTION, max_tokens="32", block_length="32")
    with Image.open(saved(page, "png", tmp_path)) as png, Image.open(saved(page, "gif", tmp_path)) as gif:
        assert gif.size == png.size and getattr(gif, "n_frames", 1) == 33
        masks = []
        for frame in (0, 16, 32):
            gif.seek(frame)
            masks.append(share_of(gif.convert("RGB"), mask_colour(page)))
        pairs = zip(pixels_of(png.convert("RGB")), pixels_of(gif.convert("RGB")), strict=True)
        far = sum(max(abs(a - b) for a, b in zip(one, other, strict=True)) > 40 for one, other in pairs)
        assert far < 0.01 * png.width * png.height
    assert masks[0] > masks[1] > masks[2] and masks[2] < 0.001


def mask_colour(page: Page) -> tuple[int, ...]:
    text = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--mask-b')").strip("# ")
    return tuple(int(text[i : i + 2], 16) for i in (0, 2, 4))


def pixels_of(image: Image.Image) -> list[bytes]:
    data = image.tobytes()
    return [data[i : i + 3] for i in range(0, len(data), 3)]


def share_of(image: Image.Image, colour: tuple[int, ...]) -> float:
    near = sum(all(abs(a - b) <= 8 for a, b in zip(pixel, colour, strict=True)) for pixel in pixels_of(image))
    return near / (image.width * image.height)
