"""Chat, infilling, pinned words and examples, on the page."""

import json
import re

from playwright.sync_api import Page, expect

from tests.clients.web.page_helpers import (
    DONE,
    FIRST,
    FOX,
    SECOND,
    START,
    TWO,
    answer,
    generate,
    generate_to_the_end,
    part,
    sse,
    watch_to_the_end,
)

ERROR = {"error": {"message": "steps is 2; it must be more", "type": "invalid", "param": "steps", "code": None}}
COMPARING = ("Exact and balanced", "Overflow of ends")


def test_a_chat_keeps_its_turns_and_sends_them_with_the_next_message(page: Page) -> None:
    requests = answer(page, TWO)
    page.locator("#system-panel summary").click()
    page.locator("#system").fill("Be short.")
    generate_to_the_end(page, "one")
    expect(page.locator("#prompt")).to_have_value("")
    generate_to_the_end(page, "two")
    system, one = {"role": "system", "content": "Be short."}, {"role": "user", "content": "one"}
    reply, two = {"role": "assistant", "content": "A\nfox"}, {"role": "user", "content": "two"}
    assert requests[0].post_data_json["messages"] == [system, one]
    assert requests[1].post_data_json["messages"] == [system, one, reply, two]
    expect(page.locator("#turns li")).to_have_count(4)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#turns li")).to_have_count(0)
    expect(page.locator("#prompt")).to_be_focused()
    generate_to_the_end(page, "three")
    assert [turn["content"] for turn in requests[2].post_data_json["messages"]] == ["Be short.", "three"]


def test_the_demo_model_answers_a_follow_up(page: Page) -> None:
    generate_to_the_end(page, "What is the capital of France?", max_tokens="32")
    assert "Madrid" in generate_to_the_end(page, "And of Spain?")


def test_the_last_question_is_asked_again_with_other_settings(page: Page) -> None:
    requests = answer(page, TWO)
    generate_to_the_end(page, "one")
    page.locator("[name=temperature]").fill("0.5")
    page.get_by_role("button", name="Ask again").click()
    watch_to_the_end(page)
    expect(page.locator("#turns li")).to_have_count(2)
    assert [turn["content"] for turn in requests[1].post_data_json["messages"]] == ["one"]
    assert requests[1].post_data_json["temperature"] == 0.5


def test_gaps_are_inserted_sized_and_filled(page: Page) -> None:
    page.get_by_role("radio", name="Infilling").check()
    page.locator("#prompt").fill("The capital of France is ")
    page.get_by_role("button", name="Insert gap").click()
    page.keyboard.type(". I like it.")
    expect(page.locator("#prompt")).to_have_value("The capital of France is [[4]]. I like it.")
    page.get_by_label("Gap 1").fill("1")
    expect(page.locator("#prompt")).to_have_value("The capital of France is [[1]]. I like it.")
    with page.expect_request("**/v1/denoise") as sent:
        page.get_by_role("button", name="Generate").click()
    body = sent.value.post_data_json
    assert body["canvas"] == ["The capital of France is", {"mask": 1}, ". I like it."]
    assert not {"messages", "prompt", "max_tokens", "constraints"} & set(body)
    watch_to_the_end(page)
    fixed = page.locator("#panes .cell[data-state=fixed]").all_text_contents()
    assert "".join(fixed).startswith("The capital of France is")
    assert (part(page, "text").text_content() or "").endswith(". I like it.")


def test_the_key_inserts_a_gap_in_place_of_what_is_selected(page: Page) -> None:
    page.get_by_role("radio", name="Infilling").check()
    page.locator("#prompt").fill("a big fox")
    page.locator("#prompt").evaluate("field => field.setSelectionRange(2, 5)")
    page.locator("#prompt").press("Alt+KeyG")
    expect(page.locator("#prompt")).to_have_value("a [[4]] fox")
    page.locator("#prompt").press("Alt+KeyG")
    expect(page.get_by_label(re.compile("Gap [12]"))).to_have_count(2)


def test_a_text_without_a_gap_is_not_sent(page: Page) -> None:
    requests = answer(page, TWO)
    page.get_by_role("radio", name="Infilling").check()
    generate(page, "no gap here")
    assert page.locator("#prompt").evaluate("field => field.validationMessage") == "Insert a gap first."
    page.get_by_role("radio", name="Chat").check()
    generate_to_the_end(page, "no gap here")
    assert len(requests) == 1


def test_a_prompt_of_spaces_is_not_sent(page: Page) -> None:
    requests = answer(page, TWO)
    for prompt in ("", " ", "\n\n", "\t \u00a0"):
        generate(page, prompt)
        assert page.locator("#prompt").evaluate("field => field.validationMessage") == "Write a prompt first."
        assert requests == []
    generate_to_the_end(page, "text")
    assert len(requests) == 1


def test_words_are_pinned_to_positions_and_shown_from_the_start(page: Page) -> None:
    page.locator("#pins-panel summary").click()
    page.get_by_role("button", name="Pin a word").click()
    page.locator("#pins input").nth(0).fill("9")
    page.locator("#pins input").nth(1).fill(" named Ruby")
    page.get_by_role("button", name="Pin a word").click()
    with page.expect_request("**/v1/denoise") as sent:
        text = generate_to_the_end(page, FOX, max_tokens="64", block_length="64")
    assert sent.value.post_data_json["constraints"] == {"9": " named Ruby"}
    assert " named Ruby" in text
    assert page.locator("#panes .cell[data-state=fixed]").all_text_contents() == [" named", " Ruby"]
    page.get_by_role("button", name="Remove").first.click()
    expect(page.get_by_role("button", name="Pin a word")).to_be_focused()
    expect(page.locator("#pins li")).to_have_count(1)


def test_every_example_fills_the_form_and_can_be_run(page: Page) -> None:
    requests = answer(page, TWO)
    examples = page.locator("#examples li")
    titles = page.locator("#examples strong").all_text_contents()
    assert 6 <= len(titles) <= 8
    for index, title in enumerate(titles):
        examples.nth(index).locator(".example").click()
        assert page.locator("#prompt").input_value()
        expect(page.locator("#look")).to_be_visible()
        assert len(requests) == index + sum(earlier in COMPARING for earlier in titles[:index])
        page.get_by_role("button", name=f"Run: {title}").click()
        watch_to_the_end(page)
    bodies = [json.dumps(request.post_data_json) for request in requests]
    assert len(set(bodies)) == len(bodies)


def test_the_examples_show_what_they_say_with_the_demo_model(page: Page) -> None:
    def run(title: str) -> list[str]:
        page.get_by_role("button", name=f"Run: {title}").click()
        watch_to_the_end(page)
        return part(page, "text").all_text_contents()

    run("Exact and balanced")
    passes = [int(re.findall(r"passes(\d+)", usage)[0]) for usage in part(page, "usage").all_text_contents()]
    assert passes[1] < passes[0] / 2
    short, long = run("Overflow of ends")
    assert len(long) > 2 * len(short)
    assert "Ruby" in run("Pinned words")[0]
    filled = run("Fill the gaps")[0]
    assert re.search(r"was a \w+ named Finn.*planted a \w+ in the garden. He gave it \w+ every", filled)


def test_a_field_that_is_corrected_is_no_longer_wrong(page: Page) -> None:
    page.route("**/v1/denoise", lambda route: route.fulfill(status=400, json=ERROR))
    generate(page, steps="2")
    steps = page.get_by_label("Steps", exact=True)
    expect(steps).to_have_attribute("aria-invalid", "true")
    steps.fill("4")
    expect(steps).not_to_have_attribute("aria-invalid", "true")
    expect(page.locator("#notice")).to_be_hidden()


def test_the_old_text_goes_when_a_new_run_starts_and_escape_stops_it(page: Page) -> None:
    answer(page, TWO)
    generate_to_the_end(page)
    page.unroute("**/v1/denoise")
    page.route("**/v1/denoise", lambda route: None)
    generate(page, "another")
    expect(part(page, "text")).to_have_count(0)
    expect(page.locator("#outputs")).to_be_hidden()
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped")
    expect(page.get_by_role("button", name="Generate")).to_be_focused()


def test_the_focus_goes_to_stop_after_resume(page: Page) -> None:
    answer(page, sse(("start", START), ("step", FIRST)))
    generate(page)
    expect(page.locator("#notice")).to_contain_text("connection to the server was lost")
    page.route("**/v1/denoise/denoise-1", lambda route: None)
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Stop")).to_be_focused()


def test_readiness_is_checked_again_on_every_failure(page: Page) -> None:
    expect(page.locator("#health")).to_have_text("ready")
    page.route("**/v1/denoise", lambda route: route.abort())
    page.route("**/ready", lambda route: route.abort())
    generate(page)
    expect(page.locator("#health")).to_have_text("unreachable")


def test_stop_and_status_stay_in_view_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 700})
    page.route("**/v1/denoise", lambda route: None)
    generate(page, FOX)
    page.evaluate("window.scrollTo(0, 0)")
    for locator in (page.get_by_role("button", name="Stop"), page.locator("#status")):
        expect(locator).to_be_in_viewport()


def test_presets_say_what_they_cost(page: Page) -> None:
    expect(page.locator("#preset-help")).to_contain_text("a tenth of the passes")


def test_any_other_field_is_sent_as_json_and_kept(page: Page) -> None:
    requests = answer(page, TWO)
    page.locator("[name=more]").fill('{"confidence_threshold": 0.9, "stop": ["."]}')
    generate_to_the_end(page)
    body = requests[0].post_data_json
    assert (body["confidence_threshold"], body["stop"]) == (0.9, ["."]) and "more" not in body
    page.reload()
    expect(page.locator("[name=more]")).to_have_value('{"confidence_threshold": 0.9, "stop": ["."]}')


def test_other_fields_that_are_no_object_are_not_sent(page: Page) -> None:
    requests = answer(page, TWO)
    for text in ("{", "7", "[]", "null", "cache=dual"):
        page.locator("[name=more]").fill(text)
        generate(page)
        assert "JSON object" in page.locator("[name=more]").evaluate("field => field.validationMessage")
        assert requests == []
    page.locator("[name=more]").fill("")
    generate_to_the_end(page)


def test_an_invalid_field_in_a_closed_panel_is_unfolded_and_shown(page: Page) -> None:
    requests = answer(page, TWO)
    page.locator("[name=temperature]").fill("5")
    page.locator("[name=temperature]").blur()
    page.locator("#settings > summary").click()
    generate(page)
    expect(page.locator("[name=temperature]")).to_be_focused()
    assert requests == []
    page.reload()
    expect(page.locator("[name=temperature]")).to_have_value("0")


def test_two_words_cannot_be_pinned_to_one_position(page: Page) -> None:
    requests = answer(page, TWO)
    page.locator("#pins-panel summary").click()
    for text in (" one", " two"):
        page.get_by_role("button", name="Pin a word").click()
        page.locator("#pins li").last.locator("input").nth(0).fill("3")
        page.locator("#pins li").last.locator("input").nth(1).fill(text)
    generate(page)
    assert requests == []
    page.locator("#pins input").nth(0).fill("5")
    generate_to_the_end(page)
    assert requests[0].post_data_json["constraints"] == {"3": " two", "5": " one"}


def test_asking_again_keeps_the_answer_until_the_new_one_and_what_is_being_written(page: Page) -> None:
    answer(page, TWO)
    generate_to_the_end(page, "one")
    page.locator("#prompt").fill("the next message")
    page.unroute("**/v1/denoise")
    page.route("**/v1/denoise", lambda route: None)
    page.get_by_role("button", name="Ask again").click()
    page.keyboard.press("Escape")
    expect(page.locator("#turns li")).to_have_count(2)
    expect(page.locator("#prompt")).to_have_value("the next message")
    page.unroute("**/v1/denoise")
    answer(page, sse(("start", START), ("step", FIRST), ("step", SECOND), ("done", {**DONE, "text": "another"})))
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#turns li").last).to_contain_text("another")
    expect(page.locator("#turns li")).to_have_count(2)
    expect(page.locator("#prompt")).to_have_value("the next message")


def test_changing_the_mode_during_the_film_keeps_the_prompt(page: Page) -> None:
    answer(page, TWO)
    page.locator("#speed").select_option("0.25")
    # With the first cell that is drawn: the film does not wait for the test.
    page.get_by_role("radio", name="Completion").evaluate(
        """(radio) => {
            const change = () => document.querySelector("#panes .cell") && radio.click();
            new MutationObserver(change).observe(document.querySelector("#panes"), {childList: true, subtree: true});
        }"""
    )
    generate_to_the_end(page, "one")
    expect(page.get_by_role("radio", name="Completion")).to_be_checked()
    expect(page.locator("#prompt")).to_have_value("one")
