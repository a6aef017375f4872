"""The cells of a canvas: what each position shows, for any drawing of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from clients.events import Change, Start
from clients.replay import Replay
from clients.terminal.playback import Shown
from clients.terminal.recording import Recording

LOW, MEDIUM = 0.3, 0.7
MASK, ACTIVE_MASK = " ░░", " ▒▒"
END = " end"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Kind = Literal["mask", "given", "low", "mid", "high", "end"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a position shows.

    Attributes:
        text: without control characters; line ends are "\\n".
        kind: a mask, a given token, the end of the text, or how sure the model was of the token.
        is_fresh: the newest step wrote it.
        is_active: it belongs to the block that is being filled.
    """

    position: int
    text: str
    kind: Kind
    is_fresh: bool = False
    is_active: bool = False


def cells_of(shown: Shown) -> list[Cell]:
    """The cells of a canvas; once the text is final, those up to its end."""
    replay = shown.replay
    start = replay.start
    assert start is not None
    given = _given_texts(shown.recording, start)
    block = _active_block(replay)
    fresh = set() if shown.is_over else _fresh_positions(shown)
    cells = []
    for position, change in enumerate(replay.changes):
        is_active = block is not None and start.block_of(position) == block
        kind = _kind(replay, position, change)
        text = _text(replay, position, change, is_active, given)
        cells.append(Cell(position, text, kind, position in fresh, is_active))
    return cells[: _num_visible(shown, cells)]


def plain(text: str) -> str:
    """A text that cannot move the cursor, change colours or turn the direction: control characters become pictures."""
    return _CONTROL.sub(lambda match: _picture(match[0]), text.replace("\r\n", "\n"))


def _picture(character: str) -> str:
    if character == "\t":
        return "⇥"
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"


def _kind(replay: Replay, position: int, change: Change | None) -> Kind:
    if replay.is_masked(position):
        return "mask"
    if _is_end(replay, position):
        return "end"
    if change is None:
        return "given"
    return "low" if change.confidence < LOW else "mid" if change.confidence < MEDIUM else "high"


def _text(replay: Replay, position: int, change: Change | None, is_active: bool, given: Mapping[int, str]) -> str:
    if replay.is_masked(position):
        return ACTIVE_MASK if is_active else MASK
    if _is_end(replay, position):
        return END
    text = given.get(position) if change is None else change.text or None
    return f" #{replay.token_ids[position]}" if text is None else plain(text)


def _is_end(replay: Replay, position: int) -> bool:
    assert replay.start is not None
    return not replay.is_masked(position) and replay.token_ids[position] in replay.start.special_tokens


def _active_block(replay: Replay) -> int | None:
    """The block of the last step; before the first, that of the first mask; none when all is done."""
    if replay.done is not None or replay.start is None:
        return None
    if replay.steps:
        return replay.steps[-1].block
    first = next((p for p in range(len(replay.token_ids)) if replay.is_masked(p)), 0)
    return replay.start.block_of(first)


def _fresh_positions(shown: Shown) -> set[int]:
    newest = shown.replay.steps[-shown.num_fresh :] if shown.num_fresh else []
    return {change.position for step in newest for change in step.changes}


def _num_visible(shown: Shown, cells: list[Cell]) -> int:
    """All cells; of a finished answer, those of the text and the token that ended it. Gaps have no end."""
    done = shown.replay.done
    if done is None or "canvas" in shown.recording.request:
        return len(cells)
    length: int = done.usage["completion_tokens"]
    has_end = length < len(cells) and cells[length].kind == "end"
    return length + has_end


def _given_texts(recording: Recording, start: Start) -> dict[int, str]:
    """The texts of given tokens by position; only their ids are in the events.

    Where the tokens' own texts are not known, the first token of a run of given ones gets the text of all.
    """
    if recording.texts:
        known = ((position, recording.texts.get(str(i))) for position, i in enumerate(start.token_ids))
        return {position: text for position, text in known if text is not None}
    texts = _texts_between_gaps(recording.request.get("canvas", []))
    runs = [
        [position for position, _ in run]
        for is_given, run in groupby(enumerate(start.token_ids), key=lambda item: item[1] != start.mask_token_id)
        if is_given
    ]
    if len(texts) != len(runs):
        return {}
    given = dict.fromkeys((position for run in runs for position in run), "")
    return given | {run[0]: text for run, text in zip(runs, texts, strict=True)}


def _texts_between_gaps(canvas: object) -> list[str]:
    if not isinstance(canvas, list) or not all(_is_text_or_gap(part) for part in canvas):
        return []  # token ids: their text is not known here
    groups = groupby(canvas, key=lambda part: isinstance(part, str))
    return [text for is_text, parts in groups if is_text and (text := "".join(parts))]


def _is_text_or_gap(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and "mask" in part)
