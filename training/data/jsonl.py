"""Training text: one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llada_core.tokenizer import Message


class DataError(ValueError):
    """A line of training data that cannot be used; names the file, the line and the rule."""


def read_texts(path: Path) -> Iterator[str]:
    """The `text` of every line of a pre-training file."""
    for place, record in _records(path):
        text = record.get("text")
        if not isinstance(text, str) or not text:
            raise DataError(f'{place}: needs a non-empty string "text"')
        yield text


def read_dialogues(path: Path) -> Iterator[list[Message]]:
    """The `messages` of every line of an SFT file; the last one is the assistant's."""
    for place, record in _records(path):
        messages = record.get("messages")
        if not isinstance(messages, list) or not messages:
            raise DataError(f'{place}: needs a non-empty list "messages"')
        dialogue = [_message(place, message) for message in messages]
        if dialogue[-1].role != "assistant":
            raise DataError(f"{place}: the last message is by {dialogue[-1].role!r}; it must be by 'assistant'")
        yield dialogue


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path.name}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: not JSON ({error.msg} at column {error.colno})") from None
            if not isinstance(record, dict):
                raise DataError(f"{place}: is a {type(record).__name__}; it must be an object")
            yield place, record


def _message(place: str, message: object) -> Message:
    match message:
        case {"role": "system" | "user" | "assistant" as role, "content": str(content)}:
            return Message(role, content)
    raise DataError(f'{place}: a message needs a "role" (system, user or assistant) and a string "content"')
