"""The web page, driven in a real browser against a real server."""

import json
import re
import time
import urllib.request

import pytest
from playwright.sync_api import Page, Route, expect

from tests.clients.web.page_helpers import (
    DONE,
    FIRST,
    FOX,
    MASK,
    SECOND,
    START,
    answer,
    commit,
    generate,
    generate_to_the_end,
    num_masks,
    part,
    play,
    seek,
    sse,
)


def test_prompt_is_denoised_live_and_final_text_shown(page: Page) -> None:
    page.evaluate(
        """() => {
            window.seen = new Set();
            const look = () => seen.add(document.querySelector("#panes [data-part=masks]")?.textContent);
            new MutationObserver(look).observe(document.querySelector("#panes"), {childList: true, subtree: true});
        }"""
    )
    # Long enough for a busy browser to draw some frames of it.
    text = generate_to_the_end(page, max_tokens="96", block_length="96", cfg_scale="1")
    assert text.strip()
    # Canvases between all masks and the final one were drawn while the request ran.
    assert page.evaluate("seen.size") > 5
    expect(part(page, "usage")).to_contain_text("Denoising steps")
    expect(page.locator("#notice")).to_be_hidden()


def test_cells_of_the_last_frame_spell_the_final_text(page: Page) -> None:
    text = generate_to_the_end(page, "What is the capital of France?", max_tokens="32")
    cells = page.locator(".canvas .cell:not(.is-past-end)").all_text_contents()
    assert "".join(cells) == text


def test_end_tokens_are_drawn_as_end_and_called_by_their_name(page: Page) -> None:
    end, eos = commit(0, 1, 5, "", 0.9), commit(1, 0, 1, "", 0.8)
    done = {**DONE, "text": "", "finish_reason": "stop", "token_ids": [1, 5]}
    answer(page, sse(("start", START), ("step", end), ("step", eos), ("done", done)))
    generate_to_the_end(page)
    cells = page.locator(".canvas .cell")
    assert cells.all_text_contents() == ["end", "end"]
    cells.nth(1).hover()
    expect(part(page, "inspector")).to_contain_text('token 5 "<|eot_id|>"')


def test_a_token_without_text_that_is_no_end_shows_its_id(page: Page) -> None:
    answer(page, sse(("start", START), ("step", commit(0, 1, 7, "", 0.9)), ("step", SECOND), ("done", DONE)))
    generate(page)
    expect(page.locator(".canvas .cell").nth(1)).to_have_text("#7")


def test_the_end_token_of_a_real_answer_is_drawn_as_end(page: Page) -> None:
    generate_to_the_end(page, "What is the capital of France?", max_tokens="32")
    assert "end" in page.locator(".canvas .cell.is-special").all_text_contents()
    assert not any(text.startswith("#") for text in page.locator(".canvas .cell").all_text_contents())


def test_completion_sends_the_prompt_as_it_stands(page: Page) -> None:
    requests = answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", DONE)))
    page.get_by_role("radio", name="Completion").check()
    assert generate_to_the_end(page, "A\nfox", steps="16", seed="7") == "A\nfox"
    body = requests[0].post_data_json
    assert (body["prompt"], body["steps"], body["seed"]) == ("A\nfox", 16, 7)
    assert "messages" not in body


def test_empty_settings_are_left_to_the_server(page: Page) -> None:
    requests = answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", DONE)))
    page.locator("[name=method]").select_option("fixed_length")
    generate_to_the_end(page)
    body = requests[0].post_data_json
    assert body["messages"] == [{"role": "user", "content": FOX}]
    # `fixed_length` is one block: the server refuses another block length beside it.
    assert not {"steps", "seed", "block_length"} & set(body)


def test_a_preset_is_sent_and_its_open_number_of_steps_shown(page: Page) -> None:
    page.locator("[name=preset]").select_option("fast")
    with page.expect_request("**/v1/denoise") as sent:
        generate_to_the_end(page)
    assert sent.value.post_data_json["preset"] == "fast"
    assert part(page, "step").inner_text().isdigit()


def test_control_enter_generates(page: Page) -> None:
    requests = answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", DONE)))
    page.get_by_role("button", name="A first question The answer").click()
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Done")
    assert requests[0].post_data_json["messages"][0]["content"] == "What is the capital of France?"


def test_one_step_is_not_called_steps(page: Page) -> None:
    generate_to_the_end(page, max_tokens="1", block_length="1")
    expect(page.locator("#status")).to_have_text(re.compile("^Done: (0 tokens|1 token) in 1 step$"))


def test_stop_ends_the_request(page: Page, live_server: str) -> None:
    page.evaluate(
        """() => {
            const stop = () => document.querySelector("#panes .cell") && document.querySelector("#stop").click();
            new MutationObserver(stop).observe(document.querySelector("#panes"), {childList: true, subtree: true});
        }"""
    )
    generate(page, max_tokens="128", block_length="128", cfg_scale="1")
    expect(page.locator("#status")).to_have_text("Stopped")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(part(page, "result")).to_be_hidden()
    assert num_masks(page) > 0
    deadline = time.monotonic() + 10
    while requests_running(live_server) > 0:
        assert time.monotonic() < deadline, "the server still runs the request"
        time.sleep(0.05)


def requests_running(live_server: str) -> float:
    with urllib.request.urlopen(f"{live_server}/metrics") as response:
        found = re.search(r"^llada_requests_running(?:\{.*\})? (\S+)$", response.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


def test_slider_replays_earlier_states(page: Page) -> None:
    generate_to_the_end(page, max_tokens="32", steps="32", block_length="32")
    masks_at_end = num_masks(page)
    seek(page, 0)
    assert num_masks(page) == 32
    seek(page, 5)
    assert num_masks(page) == 27
    assert page.locator(".canvas .cell[data-state=fresh]").count() == 1
    assert (part(page, "step").text_content() or "").startswith("5 /")
    seek(page, 32)
    assert num_masks(page) == masks_at_end


def test_play_runs_from_the_first_frame_to_the_last(page: Page) -> None:
    answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", DONE)))
    generate_to_the_end(page)
    page.locator("#speed").select_option("0.25")
    assert play(page) == "0 / 2"
    expect(page.get_by_role("button", name="Play")).to_be_visible(timeout=3000)
    assert num_masks(page) == 0


def test_cells_say_their_token_step_and_confidence(page: Page) -> None:
    answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", DONE)))
    generate_to_the_end(page)
    cells = page.locator(".canvas .cell")
    expect(cells.nth(1)).to_have_attribute("title", 'Position 1: token 11 "\\nfox", step 1, confidence 0.200, block 1')
    cells.nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(part(page, "inspector")).to_contain_text("Position 1")
    assert [cells.nth(i).get_attribute("data-band") for i in range(2)] == ["high", "low"]
    assert [cells.nth(i).get_attribute("data-state") for i in range(2)] == ["fresh", "settled"]


def test_tokens_without_text_show_their_id(page: Page) -> None:
    silent = commit(1, 0, 10, "", 0.9)
    start = {**START, "token_ids": [MASK, 11]}
    answer(page, sse(("start", start), ("step", silent), ("done", DONE)))
    generate_to_the_end(page)
    assert page.locator(".canvas .cell").all_text_contents() == ["#10", "#11"]


def test_remasked_positions_are_masks_again(page: Page) -> None:
    remask = {**FIRST, "changes": [{**FIRST["changes"][0], "op": "remask"}]}
    done = {**DONE, "token_ids": [MASK, MASK]}
    answer(page, sse(("start", START), ("step", FIRST), ("step", remask), ("done", done)))
    generate_to_the_end(page)
    assert num_masks(page) == 2
    expect(page.locator("#notice")).to_be_hidden()


def test_replay_that_differs_from_the_final_canvas_is_reported(page: Page) -> None:
    done = {**DONE, "token_ids": [10, 12]}
    answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", done)))
    generate_to_the_end(page)
    expect(page.locator("#notice")).to_contain_text("differs from the server's at 1 position(s), the first is 1")


def test_server_error_names_the_field(page: Page) -> None:
    # Fewer steps than blocks: only the server knows this rule.
    generate(page, max_tokens="64", block_length="8", steps="2")
    expect(page.locator("#notice")).to_contain_text("steps")
    steps = page.get_by_label("Steps", exact=True)
    expect(steps).to_have_attribute("aria-invalid", "true")
    expect(steps).to_be_focused()
    steps.fill("")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#notice")).to_be_hidden()
    expect(steps).not_to_have_attribute("aria-invalid", "true")


def test_error_event_is_shown(page: Page) -> None:
    error = {"error": {"message": "the model failed", "type": "server_error", "param": None, "code": None}}
    answer(page, sse(("start", START), ("step", FIRST), ("error", error)))
    generate(page)
    expect(page.locator("#notice")).to_contain_text("the model failed")
    expect(page.get_by_role("button", name="Resume")).to_be_hidden()
    assert num_masks(page) == 1


def test_broken_stream_is_resumed_where_it_ended(page: Page) -> None:
    answer(page, sse(("start", START), ("step", FIRST)))
    rejoins = answer(page, sse(("step", SECOND), ("done", DONE), first_id=2), path="**/v1/denoise/denoise-1")
    generate(page)
    expect(page.locator("#notice")).to_contain_text("connection to the server was lost")
    page.get_by_role("button", name="Resume").click()
    expect(part(page, "text")).to_have_text("A\nfox")
    assert rejoins[0].headers["last-event-id"] == "1"


def test_a_stream_that_broke_is_shown_as_far_as_it_came_and_goes_on_after_a_resume(page: Page) -> None:
    answer(page, sse(("start", START), ("step", FIRST)))
    generate(page)
    expect(page.locator("#notice")).to_contain_text("connection to the server was lost")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert num_masks(page) == 1
    answer(page, sse(("step", SECOND), first_id=2), path="**/v1/denoise/denoise-1")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#panes .cell[data-state=mask]")).to_have_count(0)
    expect(page.locator("#status")).to_have_text("Disconnected")
    page.unroute("**/v1/denoise/denoise-1")
    answer(page, sse(("done", DONE), first_id=3), path="**/v1/denoise/denoise-1")
    page.get_by_role("button", name="Resume").click()
    expect(part(page, "text")).to_have_text("A\nfox")
    expect(page.locator("#turns li")).to_have_count(2)


def test_if_one_of_two_runs_is_refused_the_other_ends_too(page: Page) -> None:
    error = {"error": {"message": "no such preset", "type": "invalid", "param": "preset", "code": None}}
    waiting = []

    def serve(route: Route) -> None:
        if route.request.post_data_json["preset"] == "fast":
            route.fulfill(status=400, json=error)
        else:
            waiting.append(route)

    page.route("**/v1/denoise", serve)
    page.locator("#compare").select_option("fast")
    generate(page)
    expect(page.locator("#notice-text")).to_have_text("no such preset")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()


def test_unreachable_server_is_reported(page: Page) -> None:
    page.route("**/v1/denoise", lambda route: route.abort())
    generate(page)
    expect(page.locator("#notice")).to_contain_text("connection to the server was lost")
    expect(page.get_by_role("button", name="Resume")).to_be_hidden()


def test_key_is_asked_for_and_sent(page: Page) -> None:
    body = sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", DONE))
    error = {"error": {"message": "give an API key", "type": "authentication_error", "param": None, "code": None}}

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.fulfill(content_type="text/event-stream", body=body)
        else:
            route.fulfill(status=401, json=error)

    page.route("**/v1/denoise", guard)
    generate(page)
    expect(page.locator("#notice")).to_contain_text("give an API key")
    page.get_by_label("API key").fill("secret")
    page.get_by_role("button", name="Use key").click()
    expect(page.get_by_label("API key")).to_be_hidden()
    assert generate_to_the_end(page) == "A\nfox"


def guarded(page: Page, key: str) -> None:
    """Let the model's route want a key, and show the page anew."""
    error = {"error": {"message": "give an API key", "type": "authentication_error", "param": None, "code": None}}
    card = {"id": "guarded-model", "max_model_len": 96, "vocab_size": 300}

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == f"Bearer {key}":
            route.fulfill(json={"data": [card]})
        else:
            route.fulfill(status=401, json=error)

    page.route("**/v1/models", guard)
    page.reload()


def test_a_refused_key_is_said_to_be_refused(page: Page) -> None:
    guarded(page, "secret")
    expect(page.locator("#key-message")).to_have_text("This server requires a key.")
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#key-message")).to_have_text("The server refused this key. Try another.")
    page.get_by_label("API key").fill(" secret ")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#model-name")).to_have_text("guarded-model")
    expect(page.get_by_label("API key")).to_be_hidden()


def test_a_key_that_no_header_can_carry_is_refused_by_the_page(page: Page) -> None:
    guarded(page, "secret")
    for key in ("schlüssel", "鍵", "two words", "€"):
        page.get_by_label("API key").fill(key)
        expect(page.get_by_label("API key")).not_to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Use key").click()
        expect(page.locator("#key-message")).to_contain_text("this one has other characters")
        expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#notice")).to_be_hidden()


def test_a_page_that_is_opened_while_the_model_is_loaded_shows_it_once_it_is_there(
    page: Page, live_server: str
) -> None:
    loading = {"error": {"message": "the model is being loaded", "type": "x", "param": None, "code": "loading"}}
    for path in ("**/ready", "**/v1/models"):
        page.route(path, lambda route: route.fulfill(status=503, json=loading))
    page.reload()
    expect(page.locator("#health")).to_have_text("not ready")
    expect(page.locator("#model-name")).to_have_text("unknown model")
    page.unroute("**/ready")
    page.unroute("**/v1/models")
    expect(page.locator("#health")).to_have_text("ready")
    expect(page.locator("#model-name")).to_have_text("llada-demo")


def test_model_and_readiness_are_shown(page: Page, live_server: str) -> None:
    with urllib.request.urlopen(f"{live_server}/v1/models") as response:
        model = json.load(response)["data"][0]
    expect(page.locator("#model-name")).to_have_text(model["id"])
    expect(page.locator("#health")).to_have_text("ready")


def test_page_works_at_phone_width_without_horizontal_scroll(page: Page) -> None:
    page.set_viewport_size({"width": 375, "height": 812})
    page.reload()
    expect(page.locator("#settings")).not_to_have_attribute("open", "")
    assert generate_to_the_end(page).strip()
    page.get_by_text("Settings", exact=True).click()
    expect(page.get_by_label("Temperature")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_page_makes_no_request_to_other_hosts(page: Page, live_server: str) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.reload()
    generate_to_the_end(page, max_tokens="32")
    assert len(addresses) > 5
    assert [address for address in addresses if not address.startswith(f"{live_server}/")] == []


def test_every_control_has_a_label(page: Page) -> None:
    unlabelled = page.evaluate(
        """() => [...document.querySelectorAll("input, select, textarea, button")]
            .filter((control) => !control.labels?.length && !control.ariaLabel && !control.textContent.trim())
            .map((control) => control.outerHTML)"""
    )
    assert unlabelled == []


NASTY = (
    "\ufeff: ping - 2025\r\n\r\n"
    'event: start\r\nid: 1\r\ndata: {"text": "▒ über 🦊"}\r\n\r\n'
    "id: 2\r\ndata: one\r\ndata:two\r\ndata:  three\r\n\r\n"
    "event: only a name\r\n\r\n"
    "retry: 10\rid: 3\runknown: x\rdata\r\r"
    "event: step\ndata: colon: kept\n\n"
    "event: lost\r\ndata: the stream ends before the empty line\r\n"
).encode()
NASTY_EVENTS = [
    {"event": "start", "id": "1", "data": '{"text": "▒ über 🦊"}'},
    {"event": "message", "id": "2", "data": "one\ntwo\n three"},
    {"event": "message", "id": "3", "data": ""},
    {"event": "step", "id": "3", "data": "colon: kept"},
]
CUTS = {
    "whole": [[]],
    "every byte alone": [list(range(1, len(NASTY)))],
    "three bytes each": [list(range(3, len(NASTY), 3))],
    "cut once, at any byte": [[cut] for cut in range(1, len(NASTY))],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
def test_sse_parser_gives_the_same_events_wherever_the_stream_is_cut(page: Page, cuts: list[list[int]]) -> None:
    results = page.evaluate(
        """async ([bytes, allCuts]) => {
            const script = document.querySelector("script[type=module]").src;
            const { readEvents } = await import(new URL("sse.js", script));
            const read = async (cuts) => {
                const ends = [...cuts, bytes.length];
                const chunks = ends.map((end, i) => new Uint8Array(bytes.slice(ends[i - 1] ?? 0, end)));
                const stream = new ReadableStream({
                    pull: (controller) => chunks.length ? controller.enqueue(chunks.shift()) : controller.close(),
                });
                const events = [];
                for await (const event of readEvents(stream)) events.push(event);
                return events;
            };
            return Promise.all(allCuts.map(read));
        }""",
        [list(NASTY), cuts],
    )
    assert all(events == NASTY_EVENTS for events in results)


@pytest.mark.parametrize("data", ["{garb", "null", "[]"])
def test_an_answer_that_cannot_be_read_is_reported(page: Page, data: str) -> None:
    body = sse(("start", START)) + f"id: 1\r\nevent: step\r\ndata: {data}\r\n\r\n"
    answer(page, body)
    generate(page)
    expect(page.locator("#notice")).to_be_visible()
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()


def test_a_browser_that_keeps_nothing_can_still_ask(page: Page) -> None:
    page.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) {
            Object.defineProperty(window, name, {get: () => { throw new DOMException("denied", "SecurityError"); }});
        }"""
    )
    page.reload()
    expect(page.locator("#model-name")).to_have_text("llada-demo")
    assert "Paris" in generate_to_the_end(page, "What is the capital of France?", max_tokens="32")


def test_a_resume_waits_until_the_server_has_seen_the_connection_break(page: Page) -> None:
    answer(page, sse(("start", START), ("step", FIRST)))
    generate(page)
    expect(page.locator("#notice")).to_contain_text("connection to the server was lost")
    busy = {"error": {"message": "still being read", "type": "x", "param": None, "code": "stream_is_read"}}
    answers = iter([409, 409])

    def serve(route: Route) -> None:
        if (status := next(answers, None)) is not None:
            route.fulfill(status=status, json=busy)
        else:
            body = sse(("step", SECOND), ("done", DONE), first_id=2)
            route.fulfill(content_type="text/event-stream", body=body)

    page.route("**/v1/denoise/denoise-1", serve)
    page.get_by_role("button", name="Resume").click()
    expect(part(page, "text")).to_have_text("A\nfox")
