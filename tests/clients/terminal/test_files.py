"""Saved runs: the recording, the terminal's film, and the GIF."""

import json
import math
from itertools import pairwise

import pytest
import typer
from PIL import Image, ImageChops

from clients import LLaDAClient, Replay
from clients.terminal import saving
from clients.terminal.gif import LAST_FRAME_MS, MOST_FRAMES, draw, rows_of, write_gif
from clients.terminal.playback import film
from clients.terminal.recording import DamagedFileError, Recording, read_json, write_json
from tests.clients.terminal.films import content_of, run_of, save_runs
from tests.clients.terminal.test_drawing import recording_of


def test_a_saved_run_is_what_the_server_sent(live_server, tmp_path):
    request = {
        "prompt": "Once upon a time",
        "max_tokens": 16,
        "seed": 3,
        "top_logprobs": 2,
        "include_predictions": True,
    }
    with LLaDAClient(live_server) as client:
        replay = Replay.of(client.denoise(**request))
    file = tmp_path / "run.json"
    write_json(file, [Recording(request, replay)])
    (again,) = read_json(file)
    assert (again.request, again.replay) == (request, replay)
    content = json.loads(file.read_text())
    assert content.keys() == {"format", "version", "titles", "runs"} and content["runs"][0].keys() == {
        "request",
        "start",
        "steps",
        "done",
    }
    assert "2" in content["runs"][0]["start"]["special_tokens"]
    assert len(content["runs"][0]["steps"][0]["changes"][0]["top_logprobs"]) == 2


def test_fields_without_a_value_are_not_saved(tmp_path):
    run = run_of(["Once", " more"])
    file = tmp_path / "run.json"
    write_json(file, read_json(save_runs(file, run)))
    assert json.loads(file.read_text()) == {**content_of(run), "titles": ["Canvas"]}


def test_a_saved_run_is_played_without_a_server(llada, tmp_path):
    file = save_runs(tmp_path / "run.json", run_of(["Once", " 狐狸", "🍎"]))
    result = llada("replay", str(file), LLADA_SERVER="http://127.0.0.1:9")
    assert (result.stdout, result.stderr, result.returncode) == ("Once 狐狸🍎\n", "", 0)


def without(*path):
    content = content_of(run_of(["Once", " more"]))
    part = content
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return content


def with_value(value, *path):
    content = content_of(run_of(["Once", " more"]))
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return content


DAMAGED = {
    "empty": ("", "not JSON"),
    "cut off": (json.dumps(content_of(run_of(["Once"])))[:300], "not JSON"),
    "too deep": ("[" * 100_000, "not JSON"),
    "something else": ({"version": 3}, "not a recording"),
    "a list": ([], "not a recording"),
    "a newer version": (with_value(2, "version"), "version 2"),
    "no runs": (with_value([], "runs"), "no runs"),
    "runs of numbers": (with_value([1], "runs"), "run 1"),
    "no start": (without("runs", 0, "start"), "'start'"),
    "no end": (without("runs", 0, "done"), "'done'"),
    "no text": (without("runs", 0, "done", "text"), "text"),
    "no figures": (without("runs", 0, "done", "usage", "forward_passes"), "forward_passes"),
    "no confidence": (without("runs", 0, "steps", 0, "changes", 0, "confidence"), "confidence"),
    "a position out of range": (with_value(99, "runs", 0, "steps", 0, "changes", 0, "position"), "position"),
    "a text that is a number": (with_value(5, "runs", 0, "steps", 0, "changes", 0, "text"), "text"),
    "no canvas": (with_value([], "runs", 0, "start", "token_ids"), "token_ids"),
    "a block of nothing": (with_value(0, "runs", 0, "start", "block_length"), "block_length"),
    "blocks before the first": (with_value(-1, "runs", 0, "start", "block_offset"), "block_offset"),
    "a time without end": (with_value(math.inf, "runs", 0, "steps", 0, "elapsed_ms"), "elapsed_ms"),
    "a request that is a number": (with_value(5, "runs", 0, "request"), "run 1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_explained(tmp_path, name):
    content, reason = DAMAGED[name]
    file = tmp_path / "run.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DamagedFileError, match=reason) as caught:
        read_json(file)
    assert str(file) in str(caught.value)


def test_strange_values_are_drawn_nevertheless(llada, tmp_path):
    runs = [run_of(["Once", "\ud800 \x1b[2J"], canvas=5), run_of(["x"], messages=[{"content": 5}], preset="\n")]
    for number, run in enumerate(runs):
        file = save_runs(tmp_path / f"{number}.json", run)
        saved = [f"--save={tmp_path / name}" for name in ("again.cast", "again.gif", "again.json")]
        result = llada("replay", str(file), *saved)
        assert (result.returncode, result.stderr) == (0, "")
        assert "[2J" not in (tmp_path / "again.cast").read_text().replace("␛[2J", "")
        assert json.loads((tmp_path / "again.json").read_text())["runs"] == [run]


def test_a_file_that_cannot_be_read_is_one_line(llada, tmp_path):
    for path, reason in ((tmp_path / "none.json", "No such file"), (tmp_path, "directory")):
        result = llada("replay", str(path))
        assert result.returncode == 1 and result.stderr.startswith("error: ") and reason in result.stderr
        assert result.stderr.count("\n") == 1


def test_nothing_is_generated_for_a_file_that_could_not_be_written(llada, tmp_path):
    result = llada("watch", "Once", "--save", str(tmp_path / "run.txt"), LLADA_SERVER="http://127.0.0.1:9")
    assert result.returncode == 2 and result.stdout == ""


def test_a_cast_is_what_asciinema_plays(llada, tmp_path):
    files = [tmp_path / "run.cast", tmp_path / "run.json"]
    result = llada("watch", "Once", "--max-tokens", "16", *(f"--save={file}" for file in files))
    header, *events = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert header["version"] == 2 and header["width"] == 80 and header["height"] > 3
    times = [time for time, _, _ in events]
    assert times[0] == 0 and all(a < b for a, b in pairwise(times))
    assert all(kind == "o" for _, kind, _ in events)
    assert "▒▒" in events[0][2] and "▒▒" not in events[-2][2] and "tokens/s" in events[-2][2]
    assert times[-2] == pytest.approx(3, abs=1) and result.stdout


def frames_of(path):
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield image.convert("RGB"), image.info["duration"]


@pytest.mark.parametrize(("num_steps", "speed"), [(6, 1.0), (130, 0.5)])
def test_a_gif_ends_with_the_finished_canvas(tmp_path, num_steps, speed):
    recording = recording_of(run_of([" word"] * num_steps, confidences=(0.2, 0.5, 0.9)))
    file = tmp_path / "run.gif"
    write_gif(file, [recording], speed)
    frames = list(frames_of(file))
    assert 3 < len(frames) <= MOST_FRAMES and frames[-1][1] == LAST_FRAME_MS
    *_, (seconds, playback) = film([recording], speed)
    assert sum(duration for _, duration in frames[:-1]) == pytest.approx(1000 * seconds, abs=50)
    rows = rows_of(playback)
    height = max(len(rows_of(moment)) for _, moment in film([recording], speed))
    difference = ImageChops.difference(frames[-1][0], draw(rows, height).convert("RGB"))
    assert difference.getbbox() is None
    assert "░" not in str(rows) and "▒" not in str(rows)
    assert ImageChops.difference(frames[0][0], frames[-1][0]).getbbox() is not None


def test_a_gif_without_pillow_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(saving, "find_spec", lambda name: None)
    with pytest.raises(typer.BadParameter, match=r"pip install 'llada\[gif\]'"):
        saving.check_targets([tmp_path / "run.gif"])
