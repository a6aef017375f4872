"""The viewer and the chat in a real terminal."""

import json
import re

import pytest
from rich.cells import cell_len

from clients import LLaDAClient
from tests.clients.terminal.films import run_of, save_runs
from tests.clients.terminal.test_commands import LONG, QUESTION, wait_until_running
from tests.clients.terminal.tmux import lines_of, without_codes

STORY = ["Once", " upon", " a", " time", ",", "\n", "狐狸", "喜欢", "吃", "🍎", "🍐", " and", " éclairs", "."] * 8
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[1-7]|4[1-7]|9[0-7])[0-9;]*m")
FRESH = re.compile(r"\x1b\[[0-9;]*4[1-3]m")


@pytest.fixture
def story(tmp_path):
    run = run_of(STORY, confidences=(0.2, 0.5, 0.9), num_ends=3)
    run["start"]["block_length"] = 40
    for step in run["steps"]:
        step["block"] = step["step"] // 40
    return str(save_runs(tmp_path / "story.json", run))


@pytest.mark.parametrize("columns", [60, 140])
def test_wide_characters_fit_the_screen(terminal, story, columns):
    # A film of a second and a half, longer on a busy machine: never as short as the run.
    with terminal("replay", story, "--speed", "2", columns=columns, rows=40) as screen:
        text, code = screen.wait_for_exit()
    prompt, *lines = lines_of(text)
    canvas = [line for line in lines if line.startswith("  ")]
    figures = " ".join(lines[len(canvas) :])
    assert code == 0 and prompt == "› Once" and lines[: len(canvas)] == canvas
    count = len(STORY)
    assert figures.startswith(f"{count} steps · {count} forward passes · {count} tokens · 1.12 s · 100 tokens/s")
    assert "The times are the server's; the film took" in figures
    assert max(cell_len(line) for line in canvas) <= columns
    shown = "".join(canvas).replace(" ", "")
    assert shown == "".join(STORY).replace("\n", "↵").replace(" ", "") + "end"
    assert sum(line.endswith("↵") for line in canvas) == 8


@pytest.mark.parametrize("columns", [60, 140])
def test_masks_tokens_and_the_active_block_are_seen_with_colour_and_without(terminal, story, columns):
    for environment in ({}, {"NO_COLOR": "1"}):
        with terminal("replay", story, "--speed", "1/4", columns=columns, **environment) as screen:
            codes = screen.wait_for_codes(
                r"^step ([2-9]|[123]\d) of 112 · block 1 of 3 · \d+ masks left\n\n"
                r"▒▒ active block  ░░ masked  confidence  <0.3  <0.7  ≥0.7$"
            )
            screen.press("C-c")
            _, code = screen.wait_for_exit()
        canvas = without_codes(codes).partition("\nstep ")[0]
        assert "▌ Once upon" in canvas and "▒▒" in canvas and "░░" in canvas
        assert bool(COLOUR.search(codes)) == bool(FRESH.search(codes)) == (environment == {})
        assert code == 130


def test_a_low_screen_follows_the_active_block(terminal, story):
    with terminal("replay", story, rows=10) as screen:
        text = screen.wait_for(r"block 3 of 3 · [^▒]+▒▒ active block")
        assert "▌" in text and text.startswith("› Once\n")
        text, code = screen.wait_for_exit()
    assert code == 0 and "end\n" in text


def test_a_dumb_terminal_shows_the_end_once(terminal, story):
    with terminal("replay", story, "--speed", "4", rows=40, TERM="dumb") as screen:
        text, code = screen.wait_for_exit()
    assert code == 0 and text.count("forward passes") == 1 and "▒" not in text
    _, *canvas, _, _, _, _ = lines_of(text)
    assert all(line.startswith("  ") for line in canvas)


def test_a_run_is_watched_live_and_saved_as_seen(terminal, live_server, tmp_path):
    file = tmp_path / "run.json"
    arguments = ("watch", QUESTION, "--max-tokens", "32", "--save", str(file), "--server", live_server)
    with terminal(*arguments) as screen:
        during = screen.wait_for(r"step \d+ of 32 · \d+ masks left")
        text, code = screen.wait_for_exit()
    (run,) = json.loads(file.read_text())["runs"]
    assert code == 0 and "▒▒" in during and "▒▒" not in text
    assert run["done"]["text"] in text and f"› {QUESTION}" in text
    usage = run["done"]["usage"]
    assert f"{usage['denoising_steps']} steps · {usage['forward_passes']} forward passes" in text


@pytest.mark.parametrize(("columns", "is_beside"), [(60, False), (140, True)])
def test_two_runs_are_drawn_under_or_beside_each_other(terminal, tmp_path, columns, is_beside):
    first = run_of(["The", " fox", " ran", " home", "."])
    second = run_of(["The", " hen", " ran", "."], prompt="Once", preset="fast")
    file = save_runs(tmp_path / "two.json", first, second)
    with terminal("replay", str(file), columns=columns) as screen:
        text, code = screen.wait_for_exit()
        codes = screen.wait_for_codes(r"^EXIT=\d+$")
    lines = lines_of(text)
    assert code == 0 and any("The fox ran home. end" in line for line in lines)
    assert any("The fox ran home. end" in line and "The hen ran. end" in line for line in lines) == is_beside
    assert any("exact" in line and "fast" in line for line in lines) == is_beside
    assert "2 words differ, underlined." in text
    underlined = re.findall(r"\x1b\[(?:[0-9;]*;)?4(?:;[0-9;]*)?m(\w+)", codes)
    assert underlined == ["fox", "home", "hen"]


def test_gaps_are_watched_in_their_text(terminal, live_server):
    text = "The capital of France is [[1]]. The capital of ___ is Rome."
    with terminal("fill", text, "--gap", "1", "--watch", "--speed", "1/4", "--server", live_server) as screen:
        during = screen.wait_for("masks left")
        after, code = screen.wait_for_exit()
    assert "The capital of France is ▒▒. The capital of ▒▒ is Rome." in during.replace("\n▌", "")
    assert code == 0 and "▒" not in after and "2 tokens" in after


def test_an_interrupt_ends_the_viewer_and_the_request(terminal, live_server):
    with terminal("watch", "Once", *LONG, "--server", live_server) as screen:
        screen.wait_for(r"^step \d")
        wait_until_running(live_server, 1)
        screen.press("C-c")
        text, code = screen.wait_for_exit()
    assert code == 130 and "Traceback" not in text
    wait_until_running(live_server, 0)


def test_an_interrupt_cancels_an_answer_and_the_chat_goes_on(terminal, live_server):
    with LLaDAClient(live_server) as client:
        answer = client.chat(QUESTION, **{"max_tokens": 16}).text
    with terminal("chat", *LONG, "--server", live_server) as screen:
        screen.wait_for("^›")
        screen.press("Tell me a story.", "Enter")
        wait_until_running(live_server, 1)
        screen.press("C-c")
        screen.wait_for("Cancelled")
        wait_until_running(live_server, 0)
        for line in ("/settings ignore_eos=", "/settings steps=16", "/settings max_tokens=16", QUESTION):
            screen.press(line, "Enter")
        # At the next prompt, and not while the answer ends.
        screen.wait_for(re.escape(answer) + r"\s+^› *$")
        screen.press("half a line")
        screen.wait_for("^› half a line$")
        screen.press("C-c")
        screen.wait_for(r"^› half a line\S*\s+^› *$")
        screen.press("C-d")
        text, code = screen.wait_for_exit()
    assert code == 0 and "Traceback" not in text


def test_characters_made_of_several_tokens_are_shown_whole_in_the_end(terminal, tmp_path):
    run = run_of(["A", " \N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}", " fox"])
    run["done"]["text"] = "A 🦊 fox"
    with terminal("replay", str(save_runs(tmp_path / "fox.json", run)), "--speed", "4") as screen:
        text, code = screen.wait_for_exit()
    assert code == 0 and "= A 🦊 fox" in text
