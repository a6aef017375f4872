"""Pace, views, the inspector and comparing, on the page."""

import re

from playwright.sync_api import Page, expect

from tests.clients.web.page_helpers import (
    DONE,
    FIRST,
    FOX,
    MASK,
    SECOND,
    START,
    TWO,
    answer,
    commit,
    generate,
    generate_to_the_end,
    num_masks,
    part,
    play,
    seek,
    sse,
    watch_to_the_end,
)

QUESTION = "What is the capital of France?"


def shown_step(page: Page) -> str:
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return part(page, "step").first.text_content() or ""


# Notes when the stream was done and when the result was shown, on the page's own clock.
WATCH = """() => {
    const seen = window.seen = {};
    new MutationObserver(() => {
        const result = document.querySelector("#panes [data-part=result]");
        if (document.querySelector("#status").textContent.includes("Done")) seen.done ??= performance.now();
        if (result && !result.hidden) seen.shown ??= performance.now();
    }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
}"""


def test_a_short_answer_takes_seconds_to_watch_and_the_figures_keep_the_true_time(page: Page) -> None:
    masks = {"gen_length": 32, "block_length": 32, "steps": 32, "token_ids": [MASK] * 32}
    steps = [commit(i, i, 10, "a", 0.9) for i in range(32)]
    answer(page, sse(("start", START | masks), *(("step", step) for step in steps), ("done", DONE)))
    page.locator("#speed").select_option("1")
    page.evaluate(WATCH)
    generate(page, QUESTION, max_tokens="32")
    watch_to_the_end(page)
    seen = page.evaluate("() => window.seen")
    assert seen["shown"] - seen["done"] > 2000
    expect(page.locator("#length")).to_have_text("2.7 s")
    expect(part(page, "elapsed")).to_have_text("155 ms")


def test_the_page_says_how_long_playing_takes_at_each_speed(page: Page) -> None:
    answer(page, TWO)
    generate_to_the_end(page)
    for speed, length in (("0.25", "0.7 s"), ("1", "0.2 s"), ("4", "0.0 s"), ("live", "0.0 s")):
        page.locator("#speed").select_option(speed)
        expect(page.locator("#length")).to_have_text(length)


def test_playing_begins_where_the_eye_is_and_only_at_the_end_from_the_beginning(page: Page) -> None:
    generate_to_the_end(page, QUESTION, max_tokens="32", block_length="32")
    page.locator("#speed").select_option("0.25")
    seek(page, 20)
    assert play(page) == "20 / 32"
    page.get_by_role("button", name="Pause").click()
    seek(page, 32)
    assert play(page) == "0 / 32"


def test_another_speed_does_not_move_the_eye(page: Page) -> None:
    generate_to_the_end(page, QUESTION, max_tokens="32", block_length="32")
    seek(page, 11)
    for speed in ("4", "live", "0.25", "1"):
        page.locator("#speed").select_option(speed)
        assert shown_step(page).startswith("11 /")


def test_the_order_view_colours_cells_by_the_step_that_committed_them(page: Page) -> None:
    generate_to_the_end(page, QUESTION, max_tokens="32", block_length="32")
    page.get_by_role("radio", name="Order").check()
    expect(page.get_by_text("last step")).to_be_visible()
    page.evaluate("() => new Promise(requestAnimationFrame)")
    cells = page.evaluate(
        """() => [...document.querySelectorAll("#panes .cell")].map((cell) => [
            Number(cell.title.match(/step (\\d+)/)[1]), Number(cell.style.getPropertyValue("--order"))])"""
    )
    assert sorted(cells) == sorted(cells, key=lambda cell: cell[1])
    assert min(order for _, order in cells) == 0 and max(order for _, order in cells) == 1


def test_the_prediction_view_shows_the_best_guess_at_every_mask(page: Page) -> None:
    page.get_by_role("radio", name="Prediction").check()
    with page.expect_request("**/v1/denoise") as sent:
        generate_to_the_end(page, QUESTION, max_tokens="32", block_length="32")
    assert sent.value.post_data_json["include_predictions"] is True
    seek(page, 10)
    assert num_masks(page) == 0
    guesses = page.locator("#panes .cell[data-state=guess]")
    assert guesses.count() == 22
    assert all(guesses.all_text_contents())
    expect(guesses.first).to_have_attribute("title", re.compile("masked, block 1; best guess"))


def test_a_run_without_predictions_says_so_in_their_view(page: Page) -> None:
    answer(page, TWO)
    generate_to_the_end(page)
    expect(part(page, "no-predictions")).to_be_hidden()
    page.get_by_role("radio", name="Prediction").check()
    expect(part(page, "no-predictions")).to_be_visible()


def test_the_text_view_renders_markdown_once_the_text_is_final(page: Page) -> None:
    text = "# Foxes\n\nA **red** fox, `code`.\n\n- one\n- two\n\n```\n<b>raw</b>\n```\n[site](https://example.org/a)"
    answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", {**DONE, "text": text})))
    generate_to_the_end(page)
    page.get_by_role("radio", name="Text", exact=True).check()
    draft = part(page, "draft")
    expect(draft.locator("h3")).to_have_text("Foxes")
    expect(draft.locator("strong")).to_have_text("red")
    assert draft.locator("li").all_text_contents() == ["one", "two"]
    expect(draft.locator("pre")).to_have_text("<b>raw</b>")
    expect(draft.locator("a")).to_have_attribute("rel", "noopener noreferrer")
    seek(page, 1)
    expect(draft).to_have_text("▒\nfox")


def test_thinking_is_folded_away_from_the_answer_and_no_turn_of_the_chat(page: Page) -> None:
    done = {**DONE, "text": "<think>\nA?\n</think>\n\n**fox**", "reasoning_content": "\nA?\n", "content": "\n\n**fox**"}
    answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", done)))
    generate_to_the_end(page)
    page.get_by_role("radio", name="Text", exact=True).check()
    expect(part(page, "text")).to_have_text("**fox**")
    expect(part(page, "draft").locator("strong")).to_have_text("fox")
    for name in ("thinking", "draft"):
        thought = part(page, name).locator("details p")
        expect(thought).to_be_hidden()
        part(page, name).locator("summary").click()
        expect(thought).to_be_visible()
        expect(thought).to_have_text("A?")
    expect(page.locator("#turns li").last).to_contain_text("**fox**")
    expect(page.locator("#turns li").last).not_to_contain_text("A?")


NASTY = (
    '<img src=x onerror="window.broken=1"> [x](javascript:window.broken=1) ![p](https://example.org/p.png) '
    "<script>window.broken=1</script>"
)


def test_text_of_model_and_user_never_becomes_html(page: Page) -> None:
    alternatives = [{"token_id": 11, "text": NASTY, "logprob": -0.1}]
    nasty = {**FIRST, "changes": [{**FIRST["changes"][0], "text": NASTY, "top_logprobs": alternatives}]}
    answer(page, sse(("start", START), ("step", nasty), ("step", SECOND), ("done", {**DONE, "text": NASTY})))
    generate_to_the_end(page, NASTY)
    expect(page.locator("#turns")).to_contain_text("onerror")
    page.locator("#panes .cell").nth(1).hover()
    for view in ("Order", "Text", "Prediction"):
        page.get_by_role("radio", name=view, exact=True).check()
    page.locator("#copy-as").select_option("curl")
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_contain_text("onerror")
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, main script, main a[href^=javascript]").count() == 0


def test_a_token_that_the_model_replaces_is_marked_and_blocks_may_count_the_prompt_too(page: Page) -> None:
    start = {**START, "block_length": 4, "block_offset": 3}
    replaced = {**SECOND["changes"][0], "op": "edit", "position": 1, "step": 2, "token_id": 12, "text": " wolf"}
    steps = [{**FIRST, "block": 1}, SECOND, {**SECOND, "step": 2, "block": 1, "changes": [replaced]}]
    answer(page, sse(("start", start), *(("step", step) for step in steps), ("done", {**DONE, "token_ids": [10, 12]})))
    generate_to_the_end(page)
    expect(page.locator(".cell.is-replaced")).to_have_count(1)
    expect(page.locator(".cell.is-replaced")).to_have_attribute(
        "title", re.compile("in place of another, step 3.*block 2$")
    )
    blocks = page.locator(".canvas .block")
    assert [block.get_attribute("aria-label") for block in blocks.all()] == ["Block 1", "Block 2"]
    assert [block.locator(".cell").count() for block in blocks.all()] == [1, 1]
    seek(page, 1)
    expect(page.locator(".cell.is-replaced")).to_have_count(0)
    expect(page.locator(".canvas .block.is-active")).to_have_attribute("aria-label", "Block 2")


def test_the_inspector_lists_the_alternatives_of_the_step_that_committed_the_token(page: Page) -> None:
    with page.expect_request("**/v1/denoise") as sent:
        generate_to_the_end(page, QUESTION, max_tokens="32")
    assert sent.value.post_data_json["top_logprobs"] == 5
    page.locator("#panes .cell").nth(1).hover()
    options = part(page, "inspector").locator("li")
    assert options.count() == 5
    assert part(page, "inspector").locator(".is-chosen").count() == 1
    probabilities = [float(text.split()[-2]) for text in options.all_text_contents()]
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_inspector_speaks_of_the_cell_as_it_is_shown(page: Page) -> None:
    answer(page, TWO)
    generate_to_the_end(page)
    page.locator("#panes .cell").nth(1).hover()
    expect(part(page, "inspector")).to_contain_text("step 1, confidence 0.200")
    seek(page, 0)
    expect(part(page, "inspector")).to_have_text("Position 1: masked, block 1")
    seek(page, 2)
    expect(part(page, "inspector")).to_contain_text("confidence 0.200")
    generate_to_the_end(page)
    expect(part(page, "inspector")).to_contain_text("Point at a cell")


def test_the_canvas_is_walked_with_arrows_home_and_end(page: Page) -> None:
    generate_to_the_end(page, QUESTION, max_tokens="64", block_length="64", seed="1")
    cells = page.locator("#panes .cell")
    cells.nth(0).focus()
    for key, expected in (("End", 63), ("ArrowRight", 63), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        expect(cells.nth(expected)).to_be_focused()
    page.keyboard.press("ArrowDown")
    below = page.evaluate("[...document.querySelectorAll('#panes .cell')].indexOf(document.activeElement)")
    assert below > 1
    tops = [cells.nth(i).evaluate("cell => cell.getBoundingClientRect().top") for i in (1, below)]
    assert tops[1] > tops[0]
    page.keyboard.press("ArrowUp")
    back = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert back == tops[0]
    assert page.locator("#panes .cell[tabindex='0']").count() == 1


def test_two_runs_are_compared_side_by_side_with_one_seed(page: Page) -> None:
    page.locator("#compare").select_option("balanced")
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if "denoise" in request.url else None)
    generate_to_the_end(page, FOX, max_tokens="64")
    assert [body["preset"] for body in bodies] == ["exact", "balanced"]
    assert bodies[0]["seed"] == bodies[1]["seed"]
    assert part(page, "title").all_text_contents() == ["exact", "balanced"]
    boxes = [pane.bounding_box() for pane in page.locator("#panes .stage").all()]
    assert boxes[0] and boxes[1] and boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    for usage in part(page, "usage").all_text_contents():
        assert "Forward passes" in usage and "Tokens a second" in usage


def test_compared_runs_are_scrubbed_on_a_common_clock(page: Page) -> None:
    page.locator("#compare").select_option("balanced")
    generate_to_the_end(page, FOX, max_tokens="64")
    steps = [int(text.split(" /")[0]) for text in part(page, "step").all_text_contents()]
    assert steps[0] > steps[1]
    slider = page.get_by_label("Recorded step")
    for clock in ("steps", "passes", "time"):
        page.locator("#clock").select_option(clock)
        slider.fill("0")
        assert num_masks(page) == 128
        slider.fill("1000")
        page.evaluate("() => new Promise(requestAnimationFrame)")
        assert [int(text.split(" /")[0]) for text in part(page, "step").all_text_contents()] == steps
    page.locator("#clock").select_option("steps")
    slider.fill(str(-(-1000 * steps[1] // steps[0])))
    page.evaluate("() => new Promise(requestAnimationFrame)")
    shown = [int(text.split(" /")[0]) for text in part(page, "step").all_text_contents()]
    assert shown[1] == steps[1] and abs(shown[0] - steps[1]) <= 1


def test_the_words_that_differ_are_marked(page: Page) -> None:
    texts = iter(["A red fox ran home.", "A blue fox ran quickly home."])
    page.route(
        "**/v1/denoise",
        lambda route: route.fulfill(
            content_type="text/event-stream",
            body=sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", {**DONE, "text": next(texts)})),
        ),
    )
    page.locator("#compare").select_option("balanced")
    generate_to_the_end(page)
    marked = [part(page, "text").nth(i).locator("mark").all_text_contents() for i in range(2)]
    assert sorted(marked) == [["blue", "quickly"], ["red"]]


def test_a_run_is_compared_with_the_settings_of_the_last_one(page: Page) -> None:
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if "denoise" in request.url else None)
    answer(page, TWO)
    generate_to_the_end(page, FOX, temperature="0.75", seed="3")
    page.locator("#compare").select_option("last")
    page.locator("[name=logits_eos_inf]").check()
    generate_to_the_end(page, "Another prompt", temperature="0", seed="7", more='{"cache": "dual"}')
    _, first, second = bodies
    assert first["messages"] == second["messages"] and first["seed"] == second["seed"] == 7
    assert (first["temperature"], first["cache"], first["logits_eos_inf"]) == (0, "dual", True)
    assert second["temperature"] == 0.75 and not {"cache", "logits_eos_inf"} & set(second)
    page.get_by_role("radio", name="Infilling").check()
    page.locator("[name=more]").fill("")
    generate_to_the_end(page, "a[[2]] fox")
    assert all("max_tokens" not in body for body in bodies[3:]) and len(bodies) == 5


def test_another_speed_does_not_throw_a_compared_run_back(page: Page) -> None:
    page.locator("[name=preset]").select_option("balanced")
    page.locator("#compare").select_option("exact")
    generate_to_the_end(page, FOX, max_tokens="64")
    page.locator("#clock").select_option("steps")
    page.get_by_label("Recorded step").fill("800")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    shown = part(page, "step").all_text_contents()
    for change in (("#speed", "2"), ("#speed", "live"), ("#clock", "passes"), ("#clock", "steps")):
        page.locator(change[0]).select_option(change[1])
        page.evaluate("() => new Promise(requestAnimationFrame)")
        assert part(page, "step").all_text_contents() == shown


def test_a_frame_costs_the_same_wherever_it_lies(page: Page) -> None:
    costs = page.evaluate(
        """async () => {
            const script = document.querySelector("script[type=module]").src;
            const { Recording } = await import(new URL("recording.js", script));
            const size = 1024;
            const ids = Array(size).fill(4);
            const start = {token_ids: ids, mask_token_id: 4, special_tokens: {}, block_length: 32, steps: size};
            const recording = new Recording(start, {});
            for (let i = 0; i < size; i++) {
                const position = (i * 389) % size;
                const change = {op: "commit", step: i, position, token_id: 9, text: "x", confidence: 1};
                recording.add({step: i, block: 0, changes: [change], masked: size - 1 - i, elapsed_ms: i});
            }
            const reads = (frame) => {
                let count = 0;
                const steps = recording.steps;
                recording.steps = new Proxy(steps, {get: (target, name) => (count++, Reflect.get(target, name))});
                recording.cellsAt(frame);
                recording.steps = steps;
                return count;
            };
            return [1, 10, 500, 1024].map(reads);
        }"""
    )
    assert max(costs) - min(costs) <= 2 and max(costs) < 10


def longest_task(page: Page, size: int) -> float:
    """Show a recorded answer of so many positions and steps; gives the milliseconds of the page's longest task."""
    start = {**START, "gen_length": size, "block_length": 32, "steps": size, "token_ids": [MASK] * size}
    steps = [
        ("step", {**FIRST, "step": i, "block": i // 32, "masked": size - 1 - i, "elapsed_ms": float(i),
                  "changes": [{**FIRST["changes"][0], "step": i, "position": i, "token_id": 10, "text": " w"}]})
        for i in range(size)
    ]  # fmt: skip
    usage = {**DONE["usage"], "completion_tokens": size, "denoising_steps": size, "forward_passes": size}
    done = {**DONE, "text": " w" * size, "usage": usage, "token_ids": [10] * size}
    answer(page, sse(("start", start), *steps, ("done", done)))
    page.evaluate(
        """() => {
            window.longest = 0;
            const keep = (entry) => (longest = Math.max(longest, entry.duration));
            new PerformanceObserver((list) => list.getEntries().forEach(keep)).observe({entryTypes: ["longtask"]});
        }"""
    )
    generate_to_the_end(page)
    expect(page.locator("#notice")).to_be_hidden()
    assert num_masks(page) == 0
    assert shown_step(page) == f"{size} / {size}"
    longest: float = page.evaluate("longest")
    return longest


def test_a_canvas_of_1024_positions_and_steps_comes_in_whole(page: Page) -> None:
    # One that grew with the square of the steps would take sixteen times as long. Browsers report tasks from 50 ms on.
    shorter = max(longest_task(page, 256), 50)
    page.reload()
    assert longest_task(page, 1024) < 10 * shorter
