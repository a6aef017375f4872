"""Branches, on the page: a frame is changed, and a run goes on from there."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

from tests.clients.web.page_helpers import (
    FOX,
    TWO,
    answer,
    generate,
    generate_to_the_end,
    num_masks,
    part,
    seek,
    watch_to_the_end,
)

STORY = {"max_tokens": "24", "seed": "3"}


def cells(page: Page, run: int = 0) -> Locator:
    return page.locator("#panes .stage").nth(run).locator(".cell")


def texts(page: Page, run: int = 0) -> list[str]:
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return cells(page, run).all_text_contents()


def go_on(page: Page) -> dict[str, Any]:
    """Go on from the changed frame to the end of the branch; gives the body that was sent."""
    with page.expect_request("**/v1/denoise") as sent:
        page.get_by_role("button", name="Go on from here").locator("visible=true").first.click()
    watch_to_the_end(page)
    return sent.value.post_data_json["fork"]


def entries(page: Page) -> list[str]:
    return [" ".join(text.split()) for text in page.locator("#branch-list li").all_text_contents()]


def test_words_are_clicked_away_and_typed_over_and_the_branch_is_shown_beside_its_parent(page: Page) -> None:
    text = generate_to_the_end(page, **STORY)
    before = texts(page)
    expect(page.locator("#branches")).to_be_hidden()
    for position in (5, 6, 8):
        cells(page).nth(position).click()
    cells(page).nth(8).click()  # taken back
    cells(page).nth(3).focus()
    page.keyboard.type("morning")
    expect(part(page, "edit-text")).to_have_value(" morning")
    page.keyboard.press("Enter")
    expect(cells(page).nth(3)).to_have_text(re.compile("morning$"))
    expect(page.locator(".cell.is-edited")).to_have_count(3)
    assert num_masks(page) == 2
    expect(part(page, "edit-summary")).to_have_text("3 changes to this frame.")
    fork = go_on(page)
    assert (fork["step"], fork["remask"], fork["set"]) == (24, [5, 6], {"3": " morning"})
    assert part(page, "title").all_text_contents() == ["Canvas", "Branch 1"]
    assert entries(page) == ["Canvas", "Branch 1 from Canvas, step 24"]
    assert texts(page, 0) == before
    after = texts(page, 1)
    assert "morning" in after[3] and [*after[:3], *after[7:]] == [*before[:3], *before[7:]]
    assert part(page, "text").nth(0).text_content() == text
    assert "morning" in part(page, "text").nth(1).locator("mark").all_text_contents()
    # What was kept has its confidence and its step; what was written has none.
    cells(page, 1).nth(10).hover()
    expect(part(page, "inspector").nth(1)).to_contain_text("confidence")
    cells(page, 1).nth(3).hover()
    expect(part(page, "inspector").nth(1)).to_contain_text("fixed from the start")
    expect(page.locator("#notice")).to_be_hidden()
    # What is copied is what was asked first: the server forgets the run.
    page.locator("#copy-as").select_option("curl")
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_contain_text(FOX)
    expect(page.locator("#copied")).not_to_contain_text("fork")


def test_a_run_goes_on_from_any_of_its_frames(page: Page) -> None:
    generate_to_the_end(page, **STORY)
    seek(page, 10)
    before = texts(page)
    settled = [position for position, text in enumerate(before) if text]
    cells(page).nth(settled[0]).click()
    fork = go_on(page)
    assert (fork["step"], fork["remask"], fork["set"]) == (10, [settled[0]], {})
    page.locator("#clock").select_option("steps")
    expect(part(page, "step").nth(1)).to_have_text(re.compile("^25 / 25$"))
    page.get_by_label("Recorded step").fill("0")
    assert texts(page, 1) == [text if i != settled[0] else "" for i, text in enumerate(before)]
    assert part(page, "step").nth(1).text_content() == "10 / 25"


def test_another_frame_drops_the_changes_and_playing_allows_none(page: Page) -> None:
    generate_to_the_end(page, **STORY)
    cells(page).nth(2).click()
    seek(page, 12)
    expect(page.locator(".cell.is-edited")).to_have_count(0)
    expect(page.get_by_role("button", name="Go on from here")).to_be_hidden()
    cells(page).nth(2).click()
    page.get_by_role("button", name="Undo changes").click()
    expect(part(page, "edit-text")).to_be_focused()
    expect(page.locator(".cell.is-edited")).to_have_count(0)
    expect(page.get_by_role("button", name="Go on from here")).to_be_disabled()
    page.locator("#speed").select_option("0.25")
    page.get_by_role("button", name="Play").click()
    expect(part(page, "edits")).to_be_hidden()
    cells(page).nth(2).click()
    expect(page.locator(".cell.is-edited")).to_have_count(0)


def test_a_branch_has_branches_and_each_is_chosen_from_the_list(page: Page) -> None:
    generate_to_the_end(page, **STORY)
    cells(page).nth(5).click()
    go_on(page)
    cells(page, 1).nth(6).click()
    fork = go_on(page)
    assert fork["step"] == 25
    assert entries(page)[2] == "Branch 2 from Branch 1, step 25"
    assert part(page, "title").all_text_contents() == ["Branch 1", "Branch 2"]
    pressed = page.locator("#branch-list [aria-pressed=true]")
    expect(pressed).to_have_text("Branch 2")
    for name, titles in (("Canvas", ["Canvas"]), ("Branch 1", ["Canvas", "Branch 1"])):
        page.get_by_role("button", name=name, exact=True).click()
        assert part(page, "title").all_text_contents() == titles
        expect(pressed).to_have_text(name)
        expect(pressed).to_be_focused()
        expect(part(page, "text").first).to_be_visible()
    generate_to_the_end(page, FOX, max_tokens="16")
    expect(page.locator("#branches")).to_be_hidden()


def test_a_branch_is_made_with_the_keyboard_alone(page: Page) -> None:
    generate_to_the_end(page, **STORY)
    cells(page).nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    page.keyboard.press("ArrowRight")
    page.keyboard.type("xylo red")
    page.keyboard.press("Enter")
    # Several tokens stand at the positions that follow.
    expect(page.locator(".cell.is-edited").nth(2)).to_be_visible()
    with page.expect_request("**/v1/denoise") as sent:
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    assert sent.value.post_data_json["fork"]["remask"] == [1]
    watch_to_the_end(page)
    assert "xylo red" in (part(page, "text").nth(1).text_content() or "")


def test_what_cannot_be_written_is_said_at_once(page: Page) -> None:
    page.get_by_role("radio", name="Infilling").check()
    generate_to_the_end(page, "Once upon a time there was a[[3]] named Tom.")
    masks = [i for i, title in enumerate(titles(page)) if "confidence" in title]
    cells(page).nth(0).click()
    expect(part(page, "edit-summary")).to_have_text("Position 0 is fixed from the start.")
    expect(page.locator(".cell.is-edited")).to_have_count(0)
    cells(page).nth(masks[-1]).click()
    part(page, "edit-text").fill(" little red")
    page.keyboard.press("Enter")
    expect(part(page, "edit-summary")).to_contain_text("tokens, and position")
    part(page, "edit-text").fill(" fox")
    page.keyboard.press("Enter")
    assert go_on(page)["set"] == {str(masks[-1]): " fox"}
    assert "fox named Tom." in (part(page, "text").nth(1).text_content() or "")


def test_words_that_are_still_on_their_way_are_part_of_the_branch(page: Page) -> None:
    generate_to_the_end(page, **STORY)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/tokenize", hold, times=1)
    with page.expect_request("**/tokenize"):
        for position, word in (1, " red"), (3, " fox"):
            cells(page).nth(position).click()
            part(page, "edit-text").fill(word)
            page.keyboard.press("Enter")
    with page.expect_request("**/v1/denoise") as sent:
        page.get_by_role("button", name="Go on from here").locator("visible=true").first.click()
        expect(part(page, "edit-summary")).to_have_text("2 changes to this frame.")
        held[0].continue_()
    assert sent.value.post_data_json["fork"]["set"] == {"1": " red", "3": " fox"}


def titles(page: Page) -> list[str]:
    return cells(page).evaluate_all("cells => cells.map((cell) => cell.title)")


def test_a_stopped_run_goes_on_as_a_branch_of_its_own(page: Page) -> None:
    page.evaluate(
        """() => {
            const [panes, stop] = [document.querySelector("#panes"), document.querySelector("#stop")];
            const watch = () => panes.querySelector("[data-state=fresh]") && stop.click();
            window.watch = new MutationObserver(watch);
            window.watch.observe(panes, {childList: true, subtree: true});
        }"""
    )
    generate(page, max_tokens="96", block_length="96", cfg_scale="1")
    expect(page.locator("#status")).to_have_text("Stopped")
    page.evaluate("window.watch.disconnect()")
    cells(page).nth(0).focus()
    page.keyboard.type("Yesterday")
    page.keyboard.press("Enter")
    expect(page.locator(".cell.is-edited").first).to_be_visible()
    go_on(page)
    assert part(page, "title").all_text_contents() == ["Branch 1"]
    assert (part(page, "text").text_content() or "").startswith("Yesterday")


def test_a_run_that_is_gone_is_said_to_be_and_the_changes_stay(page: Page) -> None:
    answer(page, TWO)
    generate_to_the_end(page)
    page.unroute("**/v1/denoise")
    cells(page).nth(1).click()
    page.get_by_role("button", name="Go on from here").click()
    expect(page.locator("#notice")).to_contain_text("there is no stream 'denoise-1'")
    expect(page.locator(".cell.is-edited")).to_have_count(1)
    expect(page.get_by_role("button", name="Go on from here")).to_be_enabled()
    expect(page.locator("#branches")).to_be_hidden()


def test_a_saved_branch_is_opened_with_what_it_has_from_its_parent_and_makes_no_branches(
    page: Page, tmp_path: Path
) -> None:
    generate_to_the_end(page, **STORY)
    cells(page).nth(5).click()
    go_on(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save", exact=True).click()
    path = tmp_path / "branch.json"
    download.value.save_as(path)
    file = json.loads(path.read_text())
    assert file["runs"][1]["start"]["parent"]["step"] == 24 and "messages" in file["runs"][1]["request"]
    before = texts(page, 1)
    page.reload()
    page.locator("#open").set_input_files(path)
    assert part(page, "title").all_text_contents() == ["Canvas", "Branch 1"]
    assert texts(page, 1) == before
    cells(page, 1).nth(2).click()
    expect(page.locator(".cell.is-edited")).to_have_count(0)
    for edits in part(page, "edits").all():
        expect(edits).to_be_hidden()
    # A damaged one is refused.
    file["runs"][1]["start"]["changes"][0]["position"] = 99
    path.write_text(json.dumps(file))
    page.locator("#open").set_input_files(path)
    expect(page.locator("#notice")).to_contain_text("run 2 is damaged: start.changes")
