"""A recorded run: what was asked and all that came of it; and its file, which the page reads and writes too."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clients.events import Done, Event, Start, Step, event_of
from clients.replay import Replay

_FORMAT, _VERSION = "llada-recording", 1
_MOST_ELAPSED_MS = 7 * 24 * 3600 * 1000


class DamagedFileError(Exception):
    """A file that is no recording; the message names the file and what is wrong with it."""


@dataclass(slots=True)
class Recording:
    """A run.

    Attributes:
        request: the body sent.
        replay: everything that has arrived so far.
        name: tells the runs of a comparison apart; empty if there is only one.
        texts: of given tokens, by id; the events have only their ids.
    """

    request: Mapping[str, Any]
    replay: Replay = field(default_factory=Replay)
    name: str = ""
    texts: dict[str, str] = field(default_factory=dict)


def write_json(path: Path, recordings: Sequence[Recording]) -> None:
    """Save finished runs."""
    path.write_text(json.dumps(content_of(recordings)) + "\n", encoding="utf-8")


def content_of(recordings: Sequence[Recording]) -> dict[str, Any]:
    """The content of a file that holds these finished runs."""
    titles = [recording.name or "Canvas" for recording in recordings]
    runs = [_run(recording) for recording in recordings]
    return {"format": _FORMAT, "version": _VERSION, "titles": titles, "runs": runs}


def read_json(path: Path) -> list[Recording]:
    """Read the runs of a file.

    Raises:
        DamagedFileError: the file is missing, cut off, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DamagedFileError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DamagedFileError(f'{path} is not a recording: it has no "format": "{_FORMAT}"')
    if content.get("version") != _VERSION:
        raise DamagedFileError(f"{path} has version {content.get('version')!r}; this program reads version {_VERSION}")
    runs = content.get("runs")
    if not isinstance(runs, list) or not runs:
        raise DamagedFileError(f"{path} holds no runs")
    recordings = [_recording(path, number, run) for number, run in enumerate(runs, start=1)]
    for recording, name in zip(recordings, _names(recordings, content.get("titles")), strict=True):
        recording.name = name
    return recordings


def _names(recordings: Sequence[Recording], titles: Any) -> list[str]:
    """Names that tell runs apart: those of the file, or their presets, if those differ."""
    if len(recordings) == 1:
        return [""]
    if isinstance(titles, list) and len(titles) == len(recordings) and all(isinstance(title, str) for title in titles):
        return titles
    presets = [str(recording.request.get("preset") or "exact") for recording in recordings]
    if len(set(presets)) == len(presets):
        return presets
    return [f"run {number}" for number in range(1, len(recordings) + 1)]


def _run(recording: Recording) -> dict[str, Any]:
    replay = recording.replay
    assert replay.start is not None and replay.done is not None
    start = asdict(replay.start)
    start["special_tokens"] = {str(token_id): name for token_id, name in start["special_tokens"].items()}
    if replay.start.parent is None:
        del start["parent"], start["changes"]
    if not replay.start.block_offset:
        del start["block_offset"]
    steps = [_step(step) for step in replay.steps]
    run = {"request": dict(recording.request), "start": start, "steps": steps, "done": asdict(replay.done)}
    return run | ({"texts": recording.texts} if recording.texts else {})


def _step(step: Step) -> dict[str, Any]:
    data = asdict(step)
    if data["predictions"] is None:
        del data["predictions"]
    for change in data["changes"]:
        if not change["top_logprobs"]:
            del change["top_logprobs"]
        if change["previous_token_id"] is None:
            del change["previous_token_id"]
    return data


def _recording(path: Path, number: int, run: Any) -> Recording:
    try:
        request = dict(run.get("request") or {})
        replay = Replay.of(_checked(run))
        texts = {str(token_id): str(text) for token_id, text in (run.get("texts") or {}).items()}
    except KeyError as error:
        raise DamagedFileError(f"{path}: run {number} lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise DamagedFileError(f"{path}: run {number} is damaged: {error}") from error
    return Recording(request, replay, texts=texts)


def _checked(run: Mapping[str, Any]) -> Iterator[Event]:
    """The events of a run; a file may come from anywhere, so what drawing relies on is checked.

    Raises:
        KeyError: a field is missing.
        TypeError: a field has another type, or is missing in a part of an event.
        ValueError: a position or a number is out of its range.
    """
    start = event_of("start", run["start"])
    assert isinstance(start, Start)
    _require_ints(start.token_ids, "start.token_ids")
    _require(start.gen_length == len(start.token_ids) > 0, "gen_length is not the number of token_ids")
    _require(_is_int(start.block_length) and start.block_length > 0, "block_length is not a positive number")
    _require(_is_int(start.block_offset) and start.block_offset >= 0, "block_offset is not a number")
    _require(start.steps is None or _is_int(start.steps), "steps is not a number")
    yield start
    for number, data in enumerate(run["steps"], start=1):
        step = event_of("step", data)
        assert isinstance(step, Step)
        _check_step(step, number, len(start.token_ids))
        yield step
    done = event_of("done", run["done"])
    assert isinstance(done, Done)
    _require_ints(done.token_ids, "done.token_ids")
    _require(isinstance(done.text, str), "done.text is not a text")
    for name in ("completion_tokens", "forward_passes", "denoising_steps"):
        _require(_is_int(done.usage[name]), f"done.usage.{name} is not a number")
    yield done


def _check_step(step: Step, number: int, length: int) -> None:
    _require(_is_int(step.block) and _is_int(step.masked), f"step {number}: block or masked is not a number")
    _require(_is_time(step.elapsed_ms), f"step {number}: elapsed_ms is not a time")
    for change in step.changes:
        _require(change.op in ("commit", "edit", "remask"), f"step {number}: unknown op {change.op!r}")
        _require(_is_int(change.position) and 0 <= change.position < length, f"step {number}: position out of range")
        _require(_is_int(change.token_id) and isinstance(change.text, str), f"step {number}: token_id or text")
        _require(isinstance(change.confidence, int | float), f"step {number}: confidence is not a number")


def _require_ints(values: Sequence[Any], name: str) -> None:
    _require(all(_is_int(value) for value in values), f"{name} are not all numbers")


def _require(is_right: bool, message: str) -> None:
    if not is_right:
        raise ValueError(message)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < _MOST_ELAPSED_MS


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
