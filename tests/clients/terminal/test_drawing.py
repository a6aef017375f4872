"""Wrapping, pace and differences: what the terminal, the .cast and the GIF have in common."""

import re
import unicodedata

import pytest
from rich.cells import cell_len

from clients.events import event_of
from clients.replay import Replay
from clients.terminal.canvas_view import note_of
from clients.terminal.cells import Cell, cells_of, plain
from clients.terminal.differences import differing
from clients.terminal.figures import progress
from clients.terminal.playback import FRAME_SECONDS, Playback, Shown, film
from clients.terminal.recording import Recording
from clients.terminal.wrapping import wrap
from tests.clients.terminal.films import run_of

STORY = [
    "Once",
    " upon",
    " a",
    " time",
    ",\n",
    " 狐狸",
    "喜欢",
    "吃",
    " 🍎",
    "🍐",
    " and",
    " e",
    "\u0301",
    "clairs",
    "." * 90,
]


def recording_of(run, name=""):
    replay = Replay.of(event_of(kind, data) for kind, data in events_of(run))
    return Recording(run["request"], replay, name)


def events_of(run):
    return [("start", run["start"]), *(("step", step) for step in run["steps"]), ("done", run["done"])]


def finished(run):
    shown = Shown(recording_of(run))
    shown.replay = shown.recording.replay
    return shown


def cells(*texts):
    return [Cell(position, text, "high") for position, text in enumerate(texts)]


def text_of(line):
    return "".join(piece.text for piece in line)


@pytest.mark.parametrize("width", [2, 7, 20, 60, 140])
def test_no_line_is_wider_than_the_screen_and_nothing_but_spaces_is_lost(width):
    lines = [text_of(line) for line in wrap(cells(*STORY), width)]
    assert max(cell_len(line) for line in lines) <= width
    expected = "".join(STORY).replace("\n", "↵")
    assert "".join(lines).replace(" ", "") == expected.replace(" ", "")


def test_lines_end_between_words_and_between_wide_characters():
    assert [text_of(line) for line in wrap(cells(" go", "ing", " home", " now"), 9)] == ["going", "home now"]
    assert [text_of(line) for line in wrap(cells("狐狸喜欢", "苹果"), 5)] == ["狐狸", "喜欢", "苹果"]
    assert [text_of(line) for line in wrap(cells("incomprehensible"), 6)] == ["incomp", "rehens", "ible"]


def test_a_line_end_is_shown_and_ends_the_line():
    assert [text_of(line) for line in wrap(cells("a", "\n\n", "  b"), 20)] == ["a↵", "↵", "  b"]
    assert [text_of(line) for line in wrap(cells("a\n"), 20)] == ["a↵"]
    assert wrap([], 20) == [[]]


def test_a_token_cannot_control_the_terminal():
    for character in "\x1b\x07\x08\r\x00\x7f\x9b\u202e\u2028":
        shown = plain(f"a{character}b")
        assert len(shown) == 3 and unicodedata.category(shown[1]) == "So"
    assert plain("a\tb\r\nc\n") == "a⇥b\nc\n"


def test_masks_tokens_and_ends_are_told_apart_without_colour():
    shown = Shown(recording_of(run_of(["Once", " more"], confidences=(0.1, 0.5))))
    shown.replay = shown.recording.replay.at(1)
    shown.num_fresh = 1
    once, *masks = cells_of(shown)
    assert (once.text, once.kind, once.is_fresh) == ("Once", "low", True)
    assert {(mask.text, mask.kind) for mask in masks} == {(" ▒▒", "mask")}
    final = cells_of(finished(run_of(["Once", " more"], confidences=(0.1, 0.5))))
    assert [(cell.text, cell.kind) for cell in final] == [("Once", "low"), (" more", "mid"), (" end", "end")]
    assert not any(cell.is_fresh or cell.is_active for cell in final)


def test_blocks_count_the_prompt_too_where_the_model_does():
    run = run_of(["Once", " more", "!"], num_ends=0)
    run["start"] |= {"block_length": 4, "block_offset": 7}
    for step, block in zip(run["steps"], (1, 2, 2), strict=True):
        step["block"] = block
    shown = finished(run)
    shown.replay = shown.replay.at(2)
    assert progress(shown.replay).replace("\xa0", " ") == "step 2 of 3 · block 3 of 3 · 1 mask left"
    assert [cell.is_active for cell in cells_of(shown)] == [False, True, True]


def test_given_tokens_show_the_text_of_the_request():
    run = run_of(["x"], num_ends=0, canvas=["The end", {"mask": 1}, "."])
    run["start"] |= {"gen_length": 4, "block_length": 4, "token_ids": [7, 8, 2, 9]}
    run["steps"][0]["changes"][0]["position"] = 2
    final = cells_of(finished(run))
    assert [(cell.text, cell.kind) for cell in final] == [
        ("The end", "given"),
        ("", "given"),
        ("x", "high"),
        (".", "given"),
    ]
    run["request"] = {"canvas": [[7, 8], {"mask": 1}, [9]]}
    assert [cell.text for cell in cells_of(finished(run))] == [" #7", " #8", "x", " #9"]


@pytest.mark.parametrize(("num_steps", "speed", "seconds"), [(30, 1, 3), (30, 4, 0.75), (30, 0.25, 12), (4, 1, 1.2)])
def test_a_short_film_takes_about_three_seconds_at_its_usual_speed(num_steps, speed, seconds):
    moments = [time for time, _ in film([recording_of(run_of(["a"] * num_steps))], speed)]
    assert moments[-1] == pytest.approx(seconds, abs=2 * FRAME_SECONDS)
    assert moments == sorted(set(moments))


def test_a_live_film_shows_each_step_when_it_came():
    counts = {}
    for time, playback in film([recording_of(run_of(["a"] * 30))], None):
        counts[round(time, 2)] = len(playback.shown[0].replay.steps)
    assert counts == {0.0: 0, 0.05: 5, 0.1: 10, 0.15: 15, 0.2: 20, 0.25: 25, 0.3: 30}


def test_two_runs_take_each_step_together():
    runs = [recording_of(run_of(["a"] * 20)), recording_of(run_of(["a"] * 5))]
    for _, playback in film(runs, 1.0):
        first, second = (len(shown.replay.steps) for shown in playback.shown)
        assert second == min(first, 5)


def test_a_slow_model_is_waited_for_and_then_not_hurried():
    whole = recording_of(run_of(["a"] * 30))
    slow = Recording(whole.request)
    playback = Playback([slow], 1.0)
    assert not playback.advance(0.0)
    slow.replay.apply(whole.replay.start)
    assert playback.advance(1.0) and not playback.advance(50.0)
    for step in whole.replay.steps:
        slow.replay.apply(step)
    slow.replay.apply(whole.replay.done)
    assert playback.advance(50.2)
    assert len(playback.shown[0].replay.steps) == 3  # one for each tenth of a second


def test_the_figures_say_that_the_film_was_slower_than_the_run():
    run = recording_of(run_of(["a"] * 30))
    *_, (_, slowed) = film([run], 1.0)
    assert re.fullmatch(r"The times are the server's; the film took 3\.\d s\.", note_of(slowed))
    *_, (_, live) = film([run], None)
    assert note_of(live) == ""


def test_words_that_differ_are_found_over_tokens():
    first, second = cells("A", " br", "own", " fox", " slept"), cells("A", " brown", " hen", " slept", ".")
    marks = differing(first, second)
    assert marks == ({3}, {2, 4}, 2)
    assert differing(first, first) == (set(), set(), 0)
